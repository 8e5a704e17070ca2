#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# scripts/storm in small, and that it notices what it is to notice.

load ../lib.bash

@test "four monitors change the graph at once, and guests, images and the program are well" {
    TMPDIR=$BATS_TEST_TMPDIR run timeout -k 5 100 "$TOP/scripts/storm" 1 --rounds 1 --seed 9 --commands 80
    assert_status 0
    assert_output "320 commands"
    [ "${lines[-1]}" = "1 rounds, 0 bad" ]
}

@test "a storm notices a program that ends in it" {
    printf '#!/bin/sh\n"%s" "$@" &\nsleep 1\nkill -KILL $!\nexit 3\n' "$MERGANSER" >dies && chmod +x dies
    TMPDIR=$BATS_TEST_TMPDIR MERGANSER=$PWD/dies run timeout -k 5 100 "$TOP/scripts/storm" 1 --rounds 1 --seed 9 --commands 100000
    assert_status 1
    assert_output "BAD: the program ended with 3 in the storm"
}
