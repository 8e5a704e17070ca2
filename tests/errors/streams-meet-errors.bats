#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A stream that cannot read or has no room: the policy of its on-error decides, and until the job is done its chain stays what
# it was.

load ../lib.bash

teardown() {
    common_teardown
    ! mountpoint -q small || umount small
}

# A base of 16 MiB of the byte 7, some clusters of which are the last of the file: cut off, they cannot be read. They lie
# where the first window of a stream fails at once and the others later. base.img is cut, whole.img is not.
make_cut_chain() {
    local cluster
    qemu-img create -q -f qcow2 base.img 16M
    qemu-io -f qcow2 -c 'write -q -P 7 0 64k' -c 'write -q -P 7 128k 3904k' -c 'write -q -P 7 4160k 1920k' \
        -c 'write -q -P 7 6144k 10M' base.img >/dev/null
    size=$(stat -c %s base.img)
    for cluster in 64 4032 4096 6080; do
        qemu-io -f qcow2 -c "write -q -P 7 ${cluster}k 64k" base.img >/dev/null
    done
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    cp base.img whole.img
    truncate -s "$size" base.img
}

mend() {
    dd if=whole.img of=base.img bs=1M conv=notrunc status=none
}

# resume_until_done: resume the job as often as it stops, and print how often that was.
resume_until_done() {
    python3 - 3>&- <<'END'
import os
import json
import socket

conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("qmp")
stream = conn.makefile("rw")


def send(command, **arguments):
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()


stream.readline()
send("qmp_capabilities")
send("block-job-resume", device="virtio0")
stops = 1
while True:
    message = json.loads(stream.readline())
    if message.get("event") == "BLOCK_JOB_COMPLETED":
        print("stops:", stops, message["data"])
        break
    if message.get("event") == "JOB_STATUS_CHANGE" and message["data"]["status"] == "paused":
        stops += 1
        send("block-job-resume", device="virtio0")
END
}

@test "an unreadable layer fails a stream, and the chain stays" {
    make_cut_chain
    run mg -drive file=top.img,if=virtio,format=qcow2 -guest profile=none -c 'block_stream virtio0' -c 'wait virtio0 done 20s'
    assert_status 4
    assert_output "Job 'virtio0' failed: Input/output error"
    mend
    assert_chain top.img top.img base.img
    assert_clean top.img
    same_content top.img whole.img
}

@test "a stream that stopped at several places brings everything after it is resumed" {
    local seed
    make_cut_chain
    for seed in 1 2 3 4; do
        qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
        truncate -s "$size" base.img
        mg_start --clock virtual --seed $seed -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
        run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "on-error": "stop"}}' @BLOCK_JOB_ERROR \
            '{"execute": "query-block-jobs"}'
        assert_output '"io-status": "failed"'
        assert_output '"status": "paused"'
        mend
        run resume_until_done
        assert_output "stops:"
        refute_output "error"
        hmp quit
        mg_wait
        assert_chain top.img top.img
        assert_clean top.img
        same_content top.img whole.img
    done
}

@test "with on-error=ignore the rest is copied, the job fails and nothing is dropped" {
    make_cut_chain
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "on-error": "ignore"}}' @BLOCK_JOB_COMPLETED
    assert_output '"action": "ignore"'
    assert_output '"error": "Input/output error"'
    hmp quit
    mg_wait || [ $? = 4 ]
    mend
    assert_chain top.img top.img base.img
    assert_clean top.img
    same_content top.img whole.img
    # 10 MiB that lie behind all faults are in the target now.
    [ "$(qemu-img map --output=json top.img | jq '[.[] | select(.depth == 0) | .length] | add')" -ge $((10 << 20)) ]
}

# 8 GiB of 512-byte clusters, so that an L1 entry is for 32 KiB; of 200,000 of them none leads anywhere.
@test "with on-error=ignore a stream passes millions of clusters below wrong tables, and floods no client with that" {
    local l1
    qemu-img create -q -f qcow2 -o cluster_size=512 base.img 8G
    qemu-io -f qcow2 -c 'write -q -P 7 0 1M' -c 'write -q -P 7 8191M 1M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    l1=$((16#$(xxd -s 40 -l 8 -p base.img)))
    python3 -c 'import sys; sys.stdout.buffer.write(b"\x80\x04\0\0\0\0\0\0" * 200000)' |
        dd of=base.img bs=64k seek=$((l1 + 8 * 1024)) oflag=seek_bytes conv=notrunc status=none
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "on-error": "ignore"}}' @BLOCK_JOB_COMPLETED
    assert_output '"error": "Input/output error"'
    assert_output '"action": "ignore"'
    [ "$(grep -c BLOCK_JOB_ERROR <<<"$output")" -lt 100 ] # of 12,500 windows
    hmp quit
    mg_wait || [ $? = 4 ]
    assert_chain top.img top.img base.img
    assert_clean top.img
    read_pattern top.img 0 1M 7
    read_pattern top.img 8191M 1M 7
    [ "$(qemu-img map --output=json top.img | jq '[.[] | select(.depth == 0) | .length] | add')" -eq $((2 << 20)) ]
}

@test "an unreadable table of the target itself fails a stream" {
    local l1
    qemu-img create -q -f qcow2 base.img 1G
    qemu-io -f qcow2 -c 'write -q -P 7 0 1M' -c 'write -q -P 7 600M 1M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    # A table of the second L1 entry that is not there: does the target hold anything behind 512 MiB? Nobody knows.
    l1=$((16#$(xxd -s 40 -l 8 -p top.img)))
    printf '\x80\x00\x00\x00\x7f\xff\x00\x00' | dd of=top.img bs=1 seek=$((l1 + 8)) conv=notrunc status=none
    run mg -drive file=top.img,if=virtio,format=qcow2 -guest profile=none -c 'block_stream virtio0' -c 'wait virtio0 done 20s'
    assert_status 4
    assert_output "Job 'virtio0' failed: "
    [ "$(backing_of top.img)" = base.img ]
}

# small N: a file system of N MiB in ./small.
small() {
    mkdir -p small
    mount -t tmpfs -o "size=$1m" merganser-test small 2>/dev/null || skip "mounting a small file system needs root"
}

make_big_chain() {
    qemu-img create -q -f qcow2 base.img 32M
    qemu-io -f qcow2 -c 'write -q -P 7 0 32M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b "$PWD/base.img" -F qcow2 small/top.img
    qemu-io -f qcow2 -c 'write -q -P 9 1M 1M' small/top.img >/dev/null
    offline_merge small/top.img merged.raw
}

@test "a full disk fails a stream, and the chain is as good as before" {
    small 8
    make_big_chain
    run mg -drive file=small/top.img,if=virtio,format=qcow2 -c 'block_stream virtio0' -c 'wait virtio0 done 20s'
    assert_status 4
    assert_output "Job 'virtio0' failed: No space left on device"
    assert_chain small/top.img top.img base.img
    assert_clean small/top.img
    same_content merged.raw small/top.img
}

@test "a stream with on-error=report ends at the first error, as without a policy" {
    make_cut_chain
    mg_start -drive file=top.img,if=virtio,format=qcow2 -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "on-error": "report"}}' @BLOCK_JOB_COMPLETED
    assert_output '"error": "Input/output error"'
    assert_output '"action": "report"'
    refute_output '"status": "paused"'
}

@test "a stream with on-error=enospc waits for room on a full disk, and goes on" {
    small 8
    make_big_chain
    mg_start -drive file=small/top.img,if=virtio,format=qcow2 -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "on-error": "enospc"}}' @BLOCK_JOB_ERROR \
        '{"execute": "query-block-jobs"}'
    assert_output '"io-status": "nospace"'
    assert_output '"status": "paused"'
    mount -o remount,size=80m small
    run resume_until_done
    assert_output "stops: 1"
    refute_output "error"
    hmp quit
    mg_wait
    assert_chain small/top.img top.img
    assert_clean small/top.img
    same_content merged.raw small/top.img
}
