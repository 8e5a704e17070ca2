#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A process that is killed loses nothing that was promised.

load ../lib.bash

# The kernel ends a killed process's requests, and lets go of its locks, a moment after the process.
unlocked() {
    local i
    for i in {1..100}; do
        ! qemu-img info "$1" 2>&1 | grep -q lock || { sleep 0.05; continue; }
        return 0
    done
    fail "$1 stays locked"
}

@test "SIGKILL right at BLOCK_JOB_COMPLETED finds everything, twenty times of twenty" {
    make_chain file-A.img file-B.img file-C.img
    offline_merge file-C.img merged.raw
    mkdir fresh && cp --sparse=always ./*.img fresh/
    local i
    for i in {1..20}; do
        cp --sparse=always fresh/*.img .
        mg_start -drive "$(chain_drive A B C)" -guest profile=none
        qmp '{"execute": "block-stream", "arguments": {"device": "virtio0"}}' @BLOCK_JOB_COMPLETED >/dev/null
        pkill -KILL -P "$MG_PID"
        mg_wait || true
        unlocked file-C.img
        assert_chain file-C.img file-C.img
        rm file-A.img file-B.img
        qemu-img check -q file-C.img || [ $? = 3 ] # leaks at most
        same_content merged.raw file-C.img
    done
}

@test "SIGKILL at any moment of a stream leaves the old chain or the new one" {
    CHAIN_SIZE=256M make_chain file-A.img file-B.img file-C.img
    qemu-io -f qcow2 -c 'write -q -P 0x77 64M 128M' file-B.img >/dev/null
    offline_merge file-C.img merged.raw
    mkdir fresh && cp --sparse=always ./*.img fresh/
    local i rc
    for i in {1..15}; do
        cp --sparse=always fresh/*.img .
        mg_start -drive "$(chain_drive A B C)" -guest rate_iops=500
        qmp '{"execute": "block-stream", "arguments": {"device": "virtio0"}}' >/dev/null
        sleep "0.0$((i % 10))$((RANDOM % 10))"
        pkill -KILL -P "$MG_PID" || true
        mg_wait || true
        unlocked file-C.img
        rc=0
        qemu-img check -q file-C.img >/dev/null 2>&1 || rc=$?
        [ $rc = 0 ] || [ $rc = 3 ] || fail "check: $rc in round $i"
        same_content merged.raw file-C.img
    done
}

# slow_stream: of 96 MiB into top.img, until room has been made ahead for all of them.
slow_stream() {
    qemu-img create -q -f qcow2 base.img 96M
    qemu-io -f qcow2 -c 'write -q -P 5 0 96M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "speed": 4194304}}' >/dev/null
    local i
    for i in {1..60}; do
        [ "$(stat -c %s top.img)" -lt 100663296 ] || return 0
        sleep 0.05
    done
    skip "this file system takes no writes past the page cache, or shares extents"
}

@test "room that a killed stream had made is used by the next one" {
    slow_stream
    pkill -KILL -P "$MG_PID"
    mg_wait || true
    unlocked top.img
    qemu-img check -q top.img || [ $? = 3 ]
    local room
    room=$(stat -c %s top.img)
    mg -drive file=top.img,if=virtio,format=qcow2 -guest profile=none -c 'block_stream virtio0' -c wait
    [ "$(backing_of top.img)" = '' ]
    assert_clean top.img
    same_content base.img top.img
    # What it had written and not linked yet may be lost.
    [ "$(stat -c %s top.img)" -le $((room + (1 << 20))) ] || fail "$room, then $(stat -c %s top.img)"
}

@test "room that a cancelled stream had made is given back" {
    slow_stream
    qmp '{"execute": "block-job-cancel", "arguments": {"device": "virtio0"}}' @BLOCK_JOB_CANCELLED >/dev/null
    [ "$(stat -c %s top.img)" -lt $((48 << 20)) ]
    hmp quit >/dev/null
    mg_wait
    assert_clean top.img
    [ "$(stat -c %s top.img)" -lt $((48 << 20)) ]
}
