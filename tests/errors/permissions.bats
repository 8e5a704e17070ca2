#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a node is used for follows from who uses it: files below filters and raw images are free while nobody does, and other programs
# see it by the locks.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f raw r.img 4M
    qemu-img create -q -f qcow2 q.img 4M
    mg_start -nodefaults -S
}

teardown() {
    mg_stop
    common_teardown
}

# ask COMMAND ARGUMENTS WORDS: its answer must hold the words.
ask() {
    output=$(qmp "{\"execute\": \"$1\", \"arguments\": $2}")
    assert_output "$3"
}

DONE='{"return": {}}'

raw_over_file() {
    ask blockdev-add '{"driver": "file", "node-name": "f", "filename": "r.img"}' "$DONE"
    ask blockdev-add '{"driver": "raw", "node-name": "r", "file": "f"}' "$DONE"
}

# In qemu-io's place: somebody who writes metadata, and shares the file with no other writer.
busy() {
    run qemu-img resize -f qcow2 "$1" 8M
    assert_output 'Failed to get'
}

free() {
    qemu-io -f raw -c 'write -q 0 64k' "$1"
    flock_free "$1"
}

# flock_free FILE: nobody has a mark on it.
flock_free() {
    ! grep -q "OFDLCK.*:$(stat -c %i "$1") " /proc/locks || fail "$(cat /proc/locks)"
}

@test "a raw image that nobody uses leaves its file to others, a device takes it, and its end gives it back" {
    raw_over_file
    free r.img
    ask device_add '{"driver": "virtio-blk", "drive": "r", "id": "v"}' "$DONE"
    run qemu-img convert -n -O raw q.img r.img
    assert_output 'Failed to get'
    ask cont '{}' "$DONE"
    qmp '{"execute": "device_del", "arguments": {"id": "v"}}' @DEVICE_DELETED
    free r.img
}

@test "a second writer of a file is refused whatever stands between" {
    raw_over_file
    ask blockdev-add '{"driver": "raw", "node-name": "r2", "file": "f"}' "$DONE"
    ask device_add '{"driver": "virtio-blk", "drive": "r", "id": "v"}' "$DONE"
    ask device_add '{"driver": "virtio-blk", "drive": "r2", "id": "w"}' "permissions 'write' are both required by node 'r' "
    ask human-monitor-command '{"command-line": "qemu-io r2 \"write 0 64k\""}' "permissions 'write' are both required by node 'r2' "
    ask nbd-server-start '{"addr": {"type": "unix", "data": {"path": "nbd"}}}' "$DONE"
    ask block-export-add '{"type": "nbd", "id": "e", "node-name": "f", "writable": true}' "unshared by node 'r' "
    ask block-export-add '{"type": "nbd", "id": "e", "node-name": "r2"}' "$DONE"
}

@test "the file of an image is not cut short below it" {
    ask blockdev-add '{"driver": "file", "node-name": "f", "filename": "q.img"}' "$DONE"
    ask blockdev-add '{"driver": "qcow2", "node-name": "q", "file": "f"}' "$DONE"
    ask block_resize '{"node-name": "f", "size": 65536}' "permissions 'resize' are both required by an unnamed block device "
    busy q.img
    ask blockdev-del '{"node-name": "q"}' "$DONE"
    qemu-img check -q q.img
}

@test "an overlay that nobody uses leaves its raw backing file to others, and a disk on it does not" {
    qemu-img create -q -f qcow2 -b r.img -F raw top.img
    ask blockdev-add '{"driver": "qcow2", "node-name": "t", "file": {"driver": "file", "filename": "top.img"}}' "$DONE"
    free r.img
    ask device_add '{"driver": "virtio-blk", "drive": "t", "id": "v"}' "$DONE"
    run qemu-io -f raw -c 'write -q 0 64k' r.img
    assert_output 'Failed to get "write" lock'
}

@test "a file that another program writes is refused to a device, and the image stays free" {
    raw_over_file
    mkfifo hold
    timeout -k 2 30 qemu-system-x86_64 -nodefaults -display none -S -m 16 -machine q35,accel=tcg -monitor stdio \
        -drive file=r.img,format=raw,if=virtio <hold >hold.out 2>&1 3>&- &
    exec 9>hold
    until grep -q "OFDLCK.*:$(stat -c %i r.img) 201 201" /proc/locks; do
        sleep 0.05
    done
    ask device_add '{"driver": "virtio-blk", "drive": "r", "id": "v"}' 'Failed to get \"write\" lock'
    echo quit >&9
    exec 9>&-
    wait %2 || wait
    ask device_add '{"driver": "virtio-blk", "drive": "r", "id": "v"}' "$DONE"
}

@test "an image whose file goes behind a filter and back keeps what its guest wrote" {
    mg_stop
    mg_start -nodefaults -object throttle-group,id=g -blockdev driver=file,node-name=f,filename=q.img \
        -blockdev driver=qcow2,node-name=q,file=f -device virtio-blk,drive=q -blockdev driver=throttle,node-name=t,throttle-group=g,file=f \
        -guest profile=stamp,bs=4k,rate_iops=0
    local i
    for i in 1 2 3 4; do
        ask blockdev-reopen '{"options": [{"driver": "qcow2", "node-name": "q", "file": "t", "l2-cache-size": 65536}]}' "$DONE"
        sleep 0.1
        ask blockdev-reopen '{"options": [{"driver": "qcow2", "node-name": "q", "file": "f"}]}' "$DONE"
    done
    hmp quit
    mg_wait
    qemu-img check -q q.img
}
