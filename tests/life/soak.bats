#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# scripts/soak in small: rounds of real kills on real files. The seed is fixed; the moments of the kills are not. And what it
# shares with scripts/life (rounds.py).

load ../lib.bash

@test "a round of the soak is good" {
    TMPDIR=$BATS_TEST_TMPDIR run timeout -k 5 100 "$TOP/scripts/soak" 1 --rounds 1 --seed 2
    assert_status 0
    assert_output "seed 2: 1 kills"
    [ "${lines[-1]}" = "1 rounds, 0 bad" ]
}

@test "the soak notices a sector that was spoilt between kill and judgement" {
    TMPDIR=$BATS_TEST_TMPDIR run timeout -k 5 100 "$TOP/scripts/soak" 1 --rounds 1 --seed 2 --sabotage
    assert_status 1
    assert_output "neither the old content nor any written since"
    [ "${lines[-1]}" = "1 rounds, 1 bad" ]
}

# A background command of a script ignores interrupts.
interrupt() { # SCRIPT WORD...
    TMPDIR=$BATS_TEST_TMPDIR env --default-signal=INT "$TOP/scripts/$1" "${@:2}" >out 2>&1 3>&- &
    local script=$! i merganser=
    for i in {1..200}; do
        merganser=$(pgrep -P $script merganser) && break
        sleep 0.05
    done
    [ -n "$merganser" ]
    kill -INT $script
    wait $script || true
    [ "$(tail -n 1 out)" = "0 rounds, 0 bad" ]
    grep -q 'interrupted: the round that was on its way does not count' out
    ! kill -0 "$merganser"
}

@test "an interrupt ends the soak with its count, and leaves neither files nor processes" {
    interrupt soak 1 --seed 2
    run ls -d merganser-soak.*
    [ "$status" != 0 ]
}

@test "so it does with random scripts" {
    interrupt life 1 11 --real
}
