#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# An image that somebody uses: QEMU's locks, in both directions, and QEMU's words.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 base.img 16M
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
}

teardown() {
    common_teardown
    [ -z "${HOLDER-}" ] || kill "$HOLDER" 2>/dev/null || true
}

# held_by_qemu ARGS...: a qemu-io that has an image open, until the test ends.
held_by_qemu() {
    mkfifo hold
    timeout -k 2 30 stdbuf -oL qemu-io "$@" <hold >hold.out 2>&1 3>&- &
    HOLDER=$!
    exec 9>hold
    echo 'read 0 512' >&9
    # Asking by opening the image would be in the holder's way.
    local i inode
    inode=$(stat -c %i "${@: -1}")
    for ((i = 0; i < 200; i++)); do
        ! grep -q "^[0-9]*: OFDLCK .*:$inode 201 201" /proc/locks || return 0
        sleep 0.05
    done
    fail "qemu-io does not hold the image"
}

# refused OPTIONS NAME "shared "|""
refused() {
    run mg -drive "$1" -c quit
    assert_status 1
    [ "$output" = "merganser: -drive $1: Failed to get $3\"write\" lock
Is another process using the image [$2]?" ] || fail "$output"
}

@test "what merganser writes QEMU neither writes nor reads, unless it shares" {
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    mg_ready
    run qemu-io -f qcow2 -c quit top.img
    assert_output 'Failed to get "write" lock'
    run qemu-io -r -f qcow2 -c quit top.img
    assert_output 'Failed to get shared "write" lock'
    run qemu-img info top.img
    assert_output 'Failed to get shared "write" lock'
    qemu-img info -U top.img
    qemu-io -U -r -f qcow2 -c 'read -q 0 4k' top.img
    run qemu-img commit top.img
    assert_output 'Failed to get'
}

@test "a backing file that merganser reads QEMU may read and not write" {
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    mg_ready
    qemu-io -r -f qcow2 -c quit base.img
    run qemu-io -f qcow2 -c quit base.img
    assert_output 'Failed to get "write" lock'
    qemu-img create -q -f qcow2 -b base.img -F qcow2 sibling.img
    qemu-io -f qcow2 -c 'read -q 0 4k' sibling.img
}

@test "what QEMU writes merganser neither writes nor reads, unless it shares" {
    held_by_qemu -f qcow2 top.img
    refused file=top.img,if=virtio,format=qcow2 top.img ''
    refused file=top.img,if=virtio,format=qcow2,readonly=on top.img 'shared '
    refused file=base.img,if=virtio,format=qcow2 base.img ''
    run mg -drive file=base.img,if=virtio,format=qcow2,readonly=on -c quit
    assert_status 0
    run mg -drive file=top.img,if=virtio,format=qcow2,readonly=on,force-share=on -c quit
    assert_status 0
    run mg -drive file=top.img,if=virtio,format=qcow2,force-share=on -c quit
    assert_status 1
    assert_output "force-share=on can only be used with read-only images"
}

@test "two mergansers do not write one image" {
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    mg_ready
    refused file=top.img,if=virtio,format=qcow2 top.img ''
    refused file=top.img,if=virtio,format=qcow2,readonly=on top.img 'shared '
    refused file=base.img,if=virtio,format=qcow2 base.img ''
}

@test "one merganser does not write one image twice" {
    run mg -drive file=top.img,if=virtio,format=qcow2 -drive file=top.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output 'Failed to get "write" lock'
}

@test "a snapshot onto an image that somebody uses leaves both alone" {
    qemu-img create -q -f qcow2 other.img 16M
    cp top.img before.img
    held_by_qemu -f qcow2 top.img
    local compat force
    for compat in '' --qemu-compat; do
        force=-f
        [ -z "$compat" ] || force=
        run mg ${compat:+"$compat"} --on-error=continue -drive file=other.img,if=virtio,format=qcow2 -guest profile=none \
            -c "snapshot_blkdev $force virtio0 top.img" -c 'info block'
        assert_output 'Error: Failed to get "write" lock'
        assert_output 'other.img (qcow2)'
        cmp top.img before.img
    done
}

@test "the layers of a merge are free when it is done" {
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    mg_ready
    run qemu-io -f qcow2 -c quit base.img
    assert_output 'Failed to get "write" lock'
    hmp 'block_stream virtio0' 'wait virtio0 done 10s'
    qemu-io -f qcow2 -c quit base.img
}
