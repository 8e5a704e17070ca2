#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Manual pages, completions and QEMU-COMPAT.md are made from the programs' tables, and say what they say now.

load ../lib.bash

# The entities of query-qmp-schema that are events.
qmp_schema() {
    printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"query-qmp-schema"}' '{"execute":"quit"}' |
        timeout -k 2 20 "$MERGANSER" -S -drive if=none -monitor none -qmp stdio 3>&- |
        jq -c 'select(.return | type == "array") | .return[] | select(."meta-type" == "event") | .name'
}

@test "what is made from the tables is what the tables say" {
    run "$TOP/scripts/manual" --check
    assert_status 0
    [ -z "$output" ]
}

@test "every option and every command has a sentence in its page" {
    [ -z "$(mg --tables | jq -r '.options[] | select(.group and (.help | not)) | .name')" ]
    [ -z "$("$BUILD_DIR/merganser-img" --tables | jq -r '.commands[] | .options[] | select(.help == "") | .name // .letter')" ]
    # What the schema calls an event has its line there, too.
    mg --tables | jq -r '.events[].name' | sort >told
    qmp_schema | tr -d '"' | sort >schema
    [ -s schema ]
    diff schema told
    [ -z "$(mg --tables | jq -r '.human[] | select((.help // "") == "") | .name')" ]
}
