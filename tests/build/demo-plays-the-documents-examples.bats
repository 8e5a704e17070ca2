#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# What the demonstration makes lies below this directory, and nothing may be left in it.
demo() {
    mkdir -p scratch
    TMPDIR=$PWD/scratch run timeout -k 5 200 "$TOP/scripts/demo" "$@" </dev/null
}

@test "without a terminal the demonstration plays every example and verifies each" {
    demo
    assert_status 0
    refute_output WRONG
    [ "${lines[-1]}" = "7 examples played and verified." ]
    [ "$(grep -c '^Verified: ' <<<"$output")" = 7 ]
    assert_output "(qemu) block_stream virtio0 A"
    assert_output "(qemu) block_stream node-D file-B.img"
    assert_output "(qemu) snapshot_blkdev ide0-hd0 "
    [ -z "$(ls scratch)" ]
}

@test "its transcript has no carriage return and no escape sequence" {
    demo
    [ "$(tr -d '\r\033' <<<"$output")" = "$output" ]
}

@test "the demonstration believes no program that does nothing" {
    printf '#!/bin/sh\nexit 0\n' >idle
    chmod +x idle
    MERGANSER=$PWD/idle demo
    assert_status 1
    assert_output "WRONG: the chain of file-E.img is file-E.img file-D.img file-C.img file-B.img file-A.img , not file-E.img"
    [ -z "$(ls scratch)" ]
}

@test "the demonstration believes no program that fails" {
    printf '#!/bin/sh\nexit 6\n' >failing
    chmod +x failing
    MERGANSER=$PWD/failing demo
    assert_status 1
    assert_output "WRONG: merganser ended with exit code 6"
}

@test "the demonstration leaves the images where it is told to, and touches no directory in use" {
    printf '#!/bin/sh\nexit 0\n' >idle
    chmod +x idle
    MERGANSER=$PWD/idle demo --dir "$PWD/images"
    assert_output "The images are in $PWD/images"
    assert_clean images/1/file-E.img
    MERGANSER=$PWD/idle demo --dir "$PWD/images"
    assert_status 1
    assert_output "scripts/demo: $PWD/images is not empty"
}
