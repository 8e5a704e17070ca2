#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Random scripts of an operator, each with its seed: see random_script.py beside this file.

load ../lib.bash

@test "twenty random scripts end well on the virtual clock" {
    run timeout -k 5 $((MG_TIMEOUT * 2)) "$TOP/scripts/life" 20 1
    assert_status 0
    [ "${lines[-1]}" = "20 rounds, 0 bad" ]
}

@test "random script 11 ends well on the real clock" {
    run timeout -k 5 $((MG_TIMEOUT * 2)) "$TOP/scripts/life" 1 11 --real
    assert_status 0
}

@test "a random script that goes wrong is named with the line that plays it again" {
    printf '#!/bin/sh\nexit 6\n' >wrong && chmod +x wrong
    MERGANSER=$PWD/wrong run timeout -k 5 $((MG_TIMEOUT * 2)) "$TOP/scripts/life" 1 7
    assert_status 1
    assert_output "BAD: exit code 6"
    assert_output "again: MERGANSER=$PWD/wrong scripts/life 1 7 --keep"
    [ "${lines[-1]}" = "1 rounds, 1 bad" ]
}

@test "words that mean nothing are refused in one line, and nothing is played" {
    local words
    for words in "life" "life 0" "life 1 x" "soak nan" "soak 1 --rounds -1"; do
        # shellcheck disable=SC2086
        run "$TOP/scripts/"$words
        assert_status 2
        [ "${#lines[@]}" = 1 ]
        assert_output "(try --help)"
    done
    MERGANSER=$PWD/nobody run "$TOP/scripts/soak" 1
    assert_status 2
    assert_output "nobody is no program"
}

@test "the judge of contents accepts old sectors and stamps of their own place, and nothing else" {
    run python3 - "$TOP/tests/life" 3>&- <<'END'
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import chain

before = b"".join(struct.pack("<I", i // 128) * 128 for i in range(0, 131072, 128))


def accepted(sector, address, profile="stamp", **words):
    now = before[:address] + sector + before[address + 512:]
    try:
        chain.judge(now, before, profile, **words)
        return True
    except chain.Bad:
        return False


def stamp(address):
    return struct.pack("<8sQ", b"MGSTAMP1", address).ljust(512, b"x")


assert accepted(before[512:1024], 512)
assert accepted(stamp(66048), 66048)
assert not accepted(stamp(66048), 66560)
assert not accepted(stamp(66048), 66048, profile="preserve")
assert not accepted(bytes(512), 1024)
assert accepted(bytes(512), 1024, trims=True)
assert not accepted(before[512:1023] + b"?", 512)
assert accepted(b"new".ljust(512), 1024, known={1024: [b"new".ljust(512)]})
assert not accepted(before[1024:1536], 1024, known={1024: [b"new".ljust(512)]})
END
    assert_status 0
}
