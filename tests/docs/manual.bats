#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Manual pages, completions and QEMU-COMPAT.md are made from the programs' tables, and say what they say now.

load ../lib.bash

@test "what is made from the tables is what the tables say" {
    run "$TOP/scripts/manual" --check
    assert_status 0
    [ -z "$output" ]
}

@test "every option and every command has a sentence in its page" {
    [ -z "$(mg --tables | jq -r '.options[] | select(.group and (.help | not)) | .name')" ]
    [ -z "$("$BUILD_DIR/merganser-img" --tables | jq -r '.commands[] | .options[] | select(.help == "") | .name // .letter')" ]
    [ -z "$(mg --tables | jq -r '.human[] | select((.help // "") == "") | .name')" ]
}
