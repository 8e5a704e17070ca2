#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A tree whose build does as the test says, with one test in it.
setup() {
    common_setup
    mkdir -p tests/unit
    cp -r "$TOP/scripts" .
    rm -f scripts/check-*
    printf '#!/bin/sh\nexit 0\n' >scripts/packages
    touch tests/unit/one.c
    cat >configure <<'END'
#!/bin/sh
mkdir -p obj/tests/unit
printf '#!/bin/sh\necho 1..1\necho ok 1 - one\n' >obj/tests/unit/one
chmod +x obj/tests/unit/one
printf 'all unit-tests fuzz-replay:\n\t@true\n' >Makefile
END
    chmod +x configure
}

check() {
    run env -i PATH="${PATH//"$BATS_LIBEXEC:"/}" HOME="$HOME" TMPDIR="$PWD" scripts/check "$@"
}

@test "all is well: N passed, 0 failed" {
    check
    assert_status 0
    [ "${lines[-1]}" = "1 passed, 0 failed" ]
    [ -d build ] && [ ! -e build-sanitize ]
}

@test "the sanitized build is another one" {
    check --sanitize
    assert_status 0
    [ -d build-sanitize ] && [ ! -e build ]
}

@test "packages that cannot be had" {
    printf '#!/bin/sh\necho "run this"\nexit 1\n' >scripts/packages
    check
    assert_status 1
    assert_output "run this"
    [ "${lines[-1]}" = "0 passed, 1 failed" ]
}

@test "a configure that fails" {
    printf '#!/bin/sh\necho "configure: error: no"\nexit 1\n' >configure
    check
    assert_status 1
    assert_output "configure: error: no"
    [ "${lines[-1]}" = "0 passed, 1 failed" ]
}

@test "a build that fails" {
    sed -i 's/@true/@echo "x.c:1: error"; exit 1/' configure
    check
    assert_status 1
    assert_output "x.c:1: error"
    [ "${lines[-1]}" = "0 passed, 1 failed" ]
}

@test "a pattern that nothing matches" {
    check nonesuch
    assert_status 1
    [ "${lines[-1]}" = "0 passed, 0 failed" ]
}

@test "an option that is none" {
    check --sanitise
    assert_status 2
    assert_output "unknown option '--sanitise'"
}
