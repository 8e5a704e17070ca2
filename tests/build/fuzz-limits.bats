#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# An input of a fuzz target that breaks one of the rules of tests/fuzz/lib/fuzz.h fails, and is kept.  The inputs are
# letters: tests/fuzz/limits/rule-breaker.c.

load ../lib.bash

setup() { common_setup; }

# breaks LETTERS SENTENCE: the program dies of one of the inputs with this sentence, and saves it.
breaks() {
    printf %s "$1" >input
    run timeout -k 2 100 "$BUILD_DIR/obj/tests/fuzz/limits/rule-breaker" input
    [ "$status" != 0 ] || fail "nobody noticed"
    assert_output "fuzz rule-breaker: $2"
    cmp input crash-rule-breaker
}

@test "an input that takes more than 100 ms fails" { breaks T 'an input took '; }
@test "an input that does not end is ended, and fails" { breaks E 'an input does not end'; }
@test "an input that holds more than 64 MiB fails" { breaks M 'an input held '; }
@test "an input that leaves a coroutine fails" { breaks C '1 coroutines are left'; }
@test "an input that leaves a node fails" { breaks N "node '"; }
@test "an input of which the target complains fails" { breaks F 'the target complains'; }

@test "inputs that are nearly too long or too large pass" {
    printf t >time
    printf m >memory
    run timeout -k 2 100 "$BUILD_DIR/obj/tests/fuzz/limits/rule-breaker" time memory
    assert_status 0
    assert_output 'ok 1 - 2 inputs of rule-breaker replayed'
}

@test "memory that grows from input to input fails" {
    local i
    mkdir inputs
    for i in {1..300}; do printf L >"inputs/$i"; done
    run timeout -k 2 100 env ASAN_OPTIONS=detect_leaks=0 "$BUILD_DIR/obj/tests/fuzz/limits/rule-breaker" -q inputs
    [ "$status" != 0 ] || fail "nobody noticed"
    assert_output 'bytes are held after'
}
