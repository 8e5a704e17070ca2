#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The examples of the live-block-operations documents, word for word, while a guest reads and writes.
#
# Two guests: `preserve` writes back what it reads, so the result must equal the same chain merged offline, byte for byte.
# `stamp` writes new content; then its own verification and the blocks that it did not touch are the judges.

load ../lib.bash

# merged ID...: the chain of these layers, merged offline before anything else touches it, in merged.raw.
merged() {
    local files=() id
    for id; do
        files+=("file-$id.img")
    done
    make_chain "${files[@]}"
    offline_merge "${files[-1]}" merged.raw
    mkdir before && cp --sparse=always ./*.img before/
}

untouched() {
    local id
    for id; do
        cmp "before/file-$id.img" "file-$id.img" || fail "file-$id.img was written"
    done
}

# play SCRIPT: on the chain A to E with a preserve guest that is busier than by default.
play() {
    run mg -drive "$(chain_drive A B C D E)" -guest rate_iops=2000,iodepth=8 -f "$1"
    assert_status 0
}

@test "block_stream virtio0 flattens the chain" {
    merged A B C D E
    printf '%s\n' 'block_stream virtio0' 'wait virtio0 done 30s' 'expect chain virtio0 = E' 'expect guest clean' >script
    play script
    assert_chain file-E.img file-E.img
    assert_clean file-E.img
    same_content merged.raw file-E.img
    untouched A B C D
}

@test "block_stream virtio0 A keeps the base that the older document names" {
    make_chain A.img B.img C.img D.img
    offline_merge D.img merged.raw
    printf '%s\n' 'block_stream virtio0 A' 'wait virtio0 done 30s' 'expect chain virtio0 = A <- D' 'expect guest clean' >script
    run mg -drive file=D.img,if=virtio,format=qcow2 -f script
    assert_status 0
    assert_chain D.img D.img A.img
    assert_clean A.img D.img
    same_content merged.raw D.img
}

@test "block_stream virtio0 file-A.img takes the base in the place of the speed" {
    merged A B C D E
    printf '%s\n' 'block_stream virtio0 file-A.img' 'wait' 'expect chain virtio0 = A <- E' >script
    play script
    assert_chain file-E.img file-E.img file-A.img
    assert_clean file-A.img file-E.img
    same_content merged.raw file-E.img
    untouched A B C D
}

@test "block_stream virtio0 0 file-A.img takes speed, then base" {
    merged A B C D E
    printf '%s\n' 'block_stream virtio0 0 file-A.img' 'wait' 'expect chain virtio0 = A <- E' >script
    play script
    assert_chain file-E.img file-E.img file-A.img
    assert_clean file-E.img
    same_content merged.raw file-E.img
    untouched A B C D
}

@test "block_stream node-D file-B.img merges an intermediate image" {
    merged A B C D E
    offline_merge file-D.img merged-D.raw
    printf '%s\n' 'block_stream node-D file-B.img' 'wait' 'expect chain virtio0 = A <- B <- D <- E' >script
    play script
    assert_chain file-E.img file-E.img file-D.img file-B.img file-A.img
    assert_clean file-B.img file-D.img file-E.img
    same_content merged.raw file-E.img
    same_content merged-D.raw file-D.img
    untouched A B C
}

@test "snapshot_blkdev and block_stream make a live copy that stands alone" {
    qemu-img create -q -f qcow2 ide.img 64M
    qemu-io -f qcow2 -c 'write -q -P 0x49 0 24M' -c 'write -q -P 0x44 40M 8M' ide.img >/dev/null
    offline_merge ide.img merged.raw
    mkdir new-path
    printf '%s\n' "snapshot_blkdev ide0-hd0 $PWD/new-path/disk.img qcow2" 'block_stream ide0-hd0' 'wait' \
        'expect chain ide0-hd0 = disk' 'expect guest clean' >script
    run mg -drive file=ide.img,if=ide,format=qcow2 -guest rate_iops=1000,iodepth=4 -f script
    assert_status 0
    assert_chain new-path/disk.img disk.img
    assert_clean new-path/disk.img ide.img
    same_content merged.raw new-path/disk.img
    rm ide.img
    same_content merged.raw new-path/disk.img
}

@test "the documents' commands merge under a guest that writes new content on both disks" {
    merged A B C D E
    qemu-img create -q -f qcow2 ide.img 64M
    mkdir new-path
    cat >script <<END
sleep 300ms
block_stream node-D file-B.img
snapshot_blkdev ide0-hd0 $PWD/new-path/disk.img qcow2
block_stream ide0-hd0
wait
block_stream virtio0 file-A.img
wait
block_stream virtio0
wait
expect chain virtio0 = E
expect guest clean
END
    run mg -drive "$(chain_drive A B C D E)" -drive file=ide.img,if=ide,format=qcow2 \
        -guest profile=stamp,rate_iops=3000,iodepth=16,size=24M,bs=4k -f script
    assert_status 0
    assert_chain file-E.img file-E.img
    assert_chain new-path/disk.img disk.img
    assert_clean file-E.img new-path/disk.img
    # Where the guest had no business (behind its 24 MiB) the content is the chain's.
    qemu-img convert -O raw file-E.img after.raw
    cmp -i 24M merged.raw after.raw
}

@test "every merge raises BLOCK_JOB_COMPLETED" {
    merged A B C
    mg_start -drive "$(chain_drive A B C)"
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0"}}' @BLOCK_JOB_COMPLETED
    assert_status 0
    assert_output '"event": "BLOCK_JOB_COMPLETED", "data": {"device": "virtio0", "len": 67108864, "offset": 67108864, "speed": 0, "type": "stream"}'
}
