#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A tree with the runner and whatever tests a test puts there; the build is the tree itself.
setup() {
    common_setup
    mkdir -p scripts tests/unit obj/tests/unit
    cp "$TOP/scripts/run-tests" scripts
}

# unit NAME COMMANDS: a compiled unit test, as far as the runner can tell.
unit() {
    touch "tests/unit/$1.c"
    printf '#!/bin/sh\n%s\n' "$2" >"obj/tests/unit/$1"
    chmod +x "obj/tests/unit/$1"
}

bats_file() {
    printf '%s\n' "$2" >"tests/$1.bats"
}

# Nothing of the bats that runs this file may reach the bats that it runs.
clean() {
    env -i PATH="${PATH//"$BATS_LIBEXEC:"/}" HOME="$HOME" TMPDIR="$PWD" "$@"
}

run_tests() {
    run clean TEST_TIMEOUT=10 scripts/run-tests --build . "$@"
    last=${lines[-1]}
}

@test "unit tests are counted by case, bats tests by test, static checks by script" {
    unit pure 'printf "1..2\nok 1 - a\nok 2 - b\n1..1\nok 1 - c\n"'
    bats_file two $'@test "one" { true; }\n@test "two" { true; }'
    printf '#!/bin/sh\nexit 0\n' >scripts/check-shoes
    chmod +x scripts/check-shoes
    run_tests static unit bats
    [ "$last" = "6 passed, 0 failed" ]
    assert_status 0
}

@test "failures are shown before the last line" {
    unit bad 'printf "1..2\nok 1 - a\nnot ok 2 - b\n# 3 != 4\n"; exit 1'
    bats_file worse $'@test "cries" { echo "tears of a test"; false; }'
    run_tests unit bats
    [ "$last" = "1 passed, 2 failed" ]
    assert_output "# 3 != 4"
    assert_output "tears of a test"
    assert_status 1
}

@test "a crash fails the tests that it swallowed" {
    unit crash 'printf "1..3\nok 1 - a\n"; kill -SEGV $$'
    run_tests unit
    [ "$last" = "1 passed, 2 failed" ]
    assert_output "# ended by signal 11"
}

@test "a program that fails without saying why has failed" {
    unit sly 'printf "1..1\nok 1 - a\n"; exit 3'
    unit silent 'exit 0'
    run_tests unit
    [ "$last" = "1 passed, 2 failed" ]
}

@test "a program that does not end is stopped and has failed" {
    unit slow 'printf "1..1\n"; sleep 30'
    run clean TEST_TIMEOUT=1 scripts/run-tests --build . unit
    [ "${lines[-1]}" = "0 passed, 1 failed" ]
    assert_output "# stopped after 1 seconds"
}

@test "skips are counted apart" {
    unit some 'printf "1..2\nok 1 - a\nnot ok 2 # SKIP b\n"'
    bats_file shy $'@test "shy" { skip "no reason"; }'
    run_tests unit bats
    [ "$last" = "1 passed, 0 failed, 2 skipped" ]
    assert_status 0
}

@test "nothing run is no success" {
    run_tests unit bats
    [ "$last" = "0 passed, 0 failed" ]
    assert_status 1
}

@test "patterns choose" {
    unit mem 'printf "1..1\nok 1 - a\n"'
    unit size 'printf "1..1\nnot ok 1 - a\n"; exit 1'
    run_tests unit -- mem
    [ "$last" = "1 passed, 0 failed" ]
}

@test "a sanitizer's report fails a test that expects the exit code" {
    unit hidden 'log=${ASAN_OPTIONS#*log_path=}; echo "heap-use-after-free" >"${log%%:*}.77"; printf "1..1\nok 1 - a\n"'
    run_tests unit
    [ "$last" = "1 passed, 1 failed" ]
    assert_output heap-use-after-free
}

@test "what an interrupted run leaves is nothing, neither files nor processes" {
    unit slow 'echo $$ >'"$PWD"'/slow.pid; sleep 30'
    mkdir scratch
    env -i --default-signal=INT PATH="$PATH" HOME="$HOME" TMPDIR="$PWD/scratch" scripts/run-tests --build . unit 3>&- &
    runner=$!
    for ((i = 0; i < 100; i++)); do
        [ ! -s slow.pid ] || break
        sleep 0.05
    done
    slow=$(cat slow.pid)
    kill -INT $runner
    wait $runner || code=$?
    [ "$code" = 130 ]
    for ((i = 0; i < 100; i++)); do
        kill -0 "$slow" 2>/dev/null || break
        sleep 0.05
    done
    run kill -0 "$slow"
    [ "$status" != 0 ]
    [ -z "$(ls scratch)" ]
}
