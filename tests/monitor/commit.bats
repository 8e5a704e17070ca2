#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# commit: what an overlay holds goes down into its backing file, judged by the real qemu-img and qemu-io.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a.img 64M
    qemu-io -c 'write -P 1 0 4M' a.img >/dev/null
    qemu-img create -q -f qcow2 -b a.img -F qcow2 b.img
    qemu-io -c 'write -P 2 1M 2M' -c 'write -z 3M 1M' -c 'write -P 3 40M 20M' b.img >/dev/null
    qemu-img convert -O raw b.img before.raw
}

@test "what was in the overlay is in the backing file, and the overlay holds nothing any more" {
    run mg -drive file=b.img,if=virtio,format=qcow2 -guest profile=none -c 'commit virtio0'
    [ "$status" -eq 0 ]
    [ "$(qemu-img map --output=json b.img | jq '[.[] | select(.depth == 0)] | length')" = 0 ]
    qemu-img compare -q a.img before.raw
    qemu-img compare -q b.img before.raw
    qemu-img check -q a.img
    qemu-img check -q b.img
}

@test "a guest that writes meanwhile finds what it wrote" {
    run mg -drive file=b.img,if=virtio,format=qcow2 -guest rw=randrw,bs=4k,iodepth=8 -c 'sleep 0.1' -c 'commit virtio0' \
        -c 'sleep 0.1' -c 'commit all' -c 'expect guest clean'
    [ "$status" -eq 0 ]
    qemu-img check -q a.img
    qemu-img check -q b.img
}

@test "a commit that is killed changes no content, and the next one does the rest" {
    local i
    for i in 0.02 0.05 0.1; do
        timeout -s KILL "$i" "$MERGANSER" -drive file=b.img,if=virtio,format=qcow2 -guest profile=none -c 'commit virtio0' \
            </dev/null >/dev/null 2>&1 3>&- || true
        # Whoever was killed keeps the lock until its requests have ended.
        timeout 20 sh -c 'until qemu-img info --backing-chain b.img >/dev/null 2>&1; do sleep 0.02; done'
        qemu-img compare -q b.img before.raw
    done
    run mg -drive file=b.img,if=virtio,format=qcow2 -guest profile=none -c 'commit virtio0'
    [ "$status" -eq 0 ]
    qemu-img compare -q a.img before.raw
}

@test "a smaller backing file grows, and what lay behind its end reads as zeroes where nobody wrote" {
    qemu-img create -q -f qcow2 low.img 64M
    qemu-io -c 'write -P 9 0 64M' low.img >/dev/null
    qemu-img create -q -f qcow2 -b low.img -F qcow2 short.img 16M
    qemu-img create -q -f qcow2 -b short.img -F qcow2 top.img 64M
    qemu-io -c 'write -P 4 30M 1M' top.img >/dev/null
    qemu-img convert -O raw top.img was.raw
    run mg -drive file=top.img,if=virtio,format=qcow2 -guest profile=none -c 'commit virtio0'
    [ "$status" -eq 0 ]
    qemu-img compare -q top.img was.raw
    qemu-img compare -q short.img was.raw
}

@test "a raw backing file takes it, too" {
    qemu-img create -q -f raw base.raw 8M
    qemu-img create -q -f qcow2 -b base.raw -F raw over.img
    qemu-io -c 'write -P 7 1M 1M' over.img >/dev/null
    qemu-img convert -O raw over.img was.raw
    run mg -drive file=over.img,if=virtio,format=qcow2 -guest profile=none -c 'commit virtio0'
    [ "$status" -eq 0 ]
    cmp base.raw was.raw
}

@test "an overlay beside it that sees the same backing file forbids it" {
    qemu-img create -q -f qcow2 -b a.img -F qcow2 c.img
    run mg -blockdev driver=qcow2,node-name=a,read-only=on,file.driver=file,file.filename=a.img \
        -blockdev driver=qcow2,node-name=c,backing=a,file.driver=file,file.filename=c.img \
        -drive file=b.img,if=virtio,format=qcow2,backing=a -guest profile=none -c 'commit virtio0'
    [ "$status" -eq 3 ]
    [[ $output == *"Permission conflict on node 'a'"*"'commit' error for 'virtio0': Operation not permitted"* ]]
    qemu-img compare -q b.img before.raw
}

# Two disks, slow and quick, and a `commit all` that is busy with the first one.
commit_both() {
    qemu-img create -q -f qcow2 -b a.img -F qcow2 slow.img
    qemu-io -c 'write -P 4 0 64k' -c 'write -P 5 8M 64k' -c 'write -P 6 16M 64k' slow.img >/dev/null
    qemu-img create -q -f qcow2 base.img 1M
    qemu-img create -q -f qcow2 -b base.img -F qcow2 quick.img
    qemu-io -c 'write -P 7 0 64k' quick.img >/dev/null
    mg_start -guest profile=none -object throttle-group,id=g,x-bps-read=131072 \
        -drive if=none,id=slow,driver=qcow2,file.driver=throttle,file.throttle-group=g,file.file.driver=file,file.file.filename=slow.img \
        -drive if=none,id=quick,file=quick.img,format=qcow2
    mg_ready
}

@test "a drive that goes while all are committed is left out" {
    local rc=0 out
    commit_both
    qmp '{"execute":"human-monitor-command","arguments":{"command-line":"commit all"}}' >all.out &
    local asking=$!
    sleep 0.3
    hmp 'drive_del quick'
    wait $asking
    grep -q '{"return": ""}' all.out
    hmp quit
    mg_wait || rc=$?
    [ "$rc" = 0 ]
    read_pattern quick.img 0 64k 7
    read_pattern base.img 0 64k 0
    read_pattern a.img 16M 64k 6
    assert_clean quick.img slow.img a.img
}

@test "a disk that is being committed keeps its size" {
    commit_both
    qmp '{"execute":"human-monitor-command","arguments":{"command-line":"commit slow"}}' >all.out &
    local asking=$!
    sleep 0.3
    run hmp 'block_resize slow 128M'
    assert_output "Error: Device 'slow' is in use"
    wait $asking
    grep -q '{"return": ""}' all.out
}

@test "the first commit that fails ends a commit of all" {
    qemu-img create -q -f qcow2 base.img 1M
    qemu-img create -q -f qcow2 -b base.img -F qcow2 second.img
    qemu-io -c 'write -P 7 0 64k' second.img >/dev/null
    run mg -guest profile=none -drive if=none,id=first,file=b.img,format=qcow2 -drive if=none,id=second,file=second.img,format=qcow2 \
        -c 'block_stream first 1B' -c '!commit all' -c 'block_job_cancel -f first'
    assert_status 0
    assert_output "'commit' error for 'all': Device or resource busy"
    read_pattern base.img 0 64k 0
}
