#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Scripts that are none: one clear sentence, and of a file nothing has run by then.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 x.img 16M
    drive=file=x.img,if=virtio,format=qcow2
}

@test "a script that is missing, and a directory" {
    run mg -drive $drive -f gone
    assert_status 1
    [ "$output" = "merganser: -f gone: Could not open 'gone': No such file or directory" ]
    run mg -drive $drive -f .
    assert_status 1
    [ "$output" = "merganser: -f .: Could not open '.': Is a directory" ]
}

@test "a file with a zero byte in it" {
    printf 'info status\n\0\ninfo name\n' >script
    run mg -drive $drive -f script
    assert_status 1
    [ "$output" = "merganser: -f script: 'script' is no script: line 2 has a zero byte in it" ]
    run mg -drive $drive -f x.img
    assert_status 1
    assert_output "'x.img' is no script: line 1 has a zero byte in it"
    run mg -drive $drive -c 'source script'
    assert_status 3
    assert_output "Error: 'script' is no script: line 2 has a zero byte in it"
}

@test "a line too long for a command" {
    { echo 'info status'; head -c 1100000 /dev/zero | tr '\0' a; } >script
    run mg -drive $drive -f script
    assert_status 1
    [ "$output" = "merganser: -f script: 'script' is no script: line 2 is too long for a command" ]
}

@test "a line without an end on standard input ends the program, not the memory" {
    run timeout -k 5 20 bash -c "tr '\0' a </dev/zero | '$MERGANSER' -drive $drive 2>&1"
    assert_status 3
    assert_output "merganser: standard input is no script: line 1 is too long for a command"
}

@test "zero bytes on standard input" {
    printf 'info status\ninfo na\0me\n' >script
    run timeout -k 5 20 bash -c "'$MERGANSER' -drive $drive <script 2>&1"
    assert_status 3
    assert_output "VM status: running"
    assert_output "merganser: standard input is no script: line 2 has a zero byte in it"
}

@test "a script that sources itself" {
    echo 'source script' >script
    run mg -drive $drive -f script
    assert_status 3
    assert_output "The script 'script' is running already: it would source itself without end"
}

@test "names that nobody has change nothing" {
    cp x.img before.img
    run mg -drive $drive --on-error=continue -guest profile=none -c '!block_stream nobody' -c '!block_stream virtio0 nobody' \
        -c '!block_stream virtio0 0 nobody' -c '!block_job_cancel nobody' -c '!block_job_pause nobody' -c '!block_job_set_speed nobody 1' \
        -c '!snapshot_blkdev nobody y.img' -c '!snapshot_blkdev virtio0 y.img nobody' -c '!nobody' -c '!info nobody' \
        -c '!guest nobody stop' -c '!qemu-io nobody "read 0 512"' -c '!qemu-io virtio0 "nobody"' -c '!expect chain nobody = x'
    assert_status 0
    cmp x.img before.img
    [ ! -e y.img ]
}
