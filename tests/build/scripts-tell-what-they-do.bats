#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

@test "every script says with --help what it is for, and does nothing else" {
    for script in "$TOP"/scripts/*; do
        [ -f "$script" ] || continue
        run timeout -k 2 20 "$script" --help
        assert_status 0
        [ ${#output} -ge 60 ] || fail "$script --help: $output"
        [ -z "$(ls)" ] || fail "$script --help made $(ls)"
    done
}
