#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# External snapshots under a guest.

load ../lib.bash

disk() {
    qemu-img create -q -f qcow2 disk.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 32M' disk.img >/dev/null
}

@test "a snapshot freezes the old image and takes the guest's writes in the new one" {
    disk
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c 'qemu-io virtio0 "write -P 2 0 1M"' \
        -c 'snapshot_blkdev virtio0 over.img qcow2' -c 'qemu-io virtio0 "write -P 3 0 64k"' \
        -c 'expect read virtio0 0 64k pattern 3' -c 'expect read virtio0 64k 64k pattern 2'
    assert_status 0
    assert_clean disk.img over.img
    assert_chain over.img over.img disk.img
    read_pattern disk.img 0 1M 2
    read_pattern over.img 0 64k 3
    read_pattern over.img 64k 64k 2
}

@test "what the guest saw never changes over fifty snapshots" {
    disk
    { for i in {1..50}; do echo "snapshot_blkdev virtio0 over$i.img qcow2"; done; echo 'expect guest clean'; } >script
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=stamp,rate_iops=5000,iodepth=16,size=16M -f script
    assert_status 0
    assert_clean over50.img over1.img disk.img
    [ "$(chain_of over50.img | wc -w)" = 51 ]
}

@test "a snapshot into another directory records a name that resolves from there" {
    disk
    mkdir elsewhere
    run mg -drive file=disk.img,if=virtio,format=qcow2 -c 'snapshot_blkdev virtio0 elsewhere/over.img qcow2'
    assert_status 0
    (cd / && assert_chain "$BATS_TEST_TMPDIR/elsewhere/over.img" over.img disk.img)
    same_content disk.img elsewhere/over.img
}

@test "a raw disk takes a qcow2 overlay, and no raw one" {
    qemu-img create -q -f raw disk.raw 16M
    run mg --on-error=continue -drive file=disk.raw,if=virtio,format=raw -c 'snapshot_blkdev virtio0 over.raw raw' \
        -c 'snapshot_blkdev virtio0 over.img qcow2'
    assert_output "Error: Backing file not supported for file format 'raw'"
    [ ! -e over.raw ]
    [ "$(backing_of over.img)" = disk.raw ]
    assert_clean over.img
}

@test "a snapshot that cannot be made leaves nothing behind" {
    disk
    run mg --on-error=continue -drive file=disk.img,if=virtio,format=qcow2 \
        -c 'snapshot_blkdev virtio0 /nonexistent/x.img qcow2' -c 'snapshot_blkdev virtio0 x.img badfmt' \
        -c 'expect chain virtio0 = disk'
    assert_status 3
    assert_output "Error: Could not create '/nonexistent/x.img': No such file or directory"
    assert_output "Error: Unknown file format 'badfmt'"
    [ ! -e x.img ]
}

@test "a file that is not empty is not overwritten unless that is asked for" {
    disk
    echo precious >file
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c '!snapshot_blkdev virtio0 file' \
        -c 'expect chain virtio0 = disk'
    assert_status 0
    assert_output "Error: 'file' is not empty: take the image in it with mode=existing (in words: -n), or let a new one take its \
place with overwrite=true (-f)"
    [ "$(cat file)" = precious ]
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c 'snapshot_blkdev -f virtio0 file'
    assert_status 0
    assert_chain file file disk.img
}

@test "QMP overwrites when it is told to" {
    disk
    echo precious >file
    mg_start -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none
    local snapshot='{"execute": "blockdev-snapshot-sync", "arguments": {"device": "virtio0", "snapshot-file": "file"'
    run qmp "$snapshot}}"
    assert_output "'file' is not empty: take the image in it with mode=existing"
    [ "$(cat file)" = precious ]
    run qmp "$snapshot, \"overwrite\": true}}"
    assert_output '{"return": {}}'
    assert_chain file file disk.img
}

@test "--qemu-compat overwrites as QEMU does, and has no word for it" {
    disk
    echo precious >file
    run mg --qemu-compat --on-error=continue -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none \
        -c 'snapshot_blkdev -f virtio0 file' -c 'snapshot_blkdev virtio0 file' -c 'snapshot_blkdev virtio0 disk.img'
    assert_output 'snapshot_blkdev: unsupported option -f'
    assert_chain file file disk.img
    assert_output 'Error: Failed to get "write" lock'
    assert_clean disk.img
}

@test "a file that is empty is as good as none" {
    disk
    touch file
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c 'snapshot_blkdev virtio0 file'
    assert_status 0
    assert_chain file file disk.img
}

@test "an image of this program is not overwritten by a snapshot of it" {
    make_chain file-A.img file-B.img
    offline_merge file-B.img merged.raw
    run mg --on-error=continue -drive "$(chain_drive A B)" -guest profile=none -c 'snapshot_blkdev virtio0 file-A.img qcow2' \
        -c 'snapshot_blkdev virtio0 file-B.img qcow2'
    assert_output 'Error: Failed to get "write" lock'
    same_content merged.raw file-B.img
}

@test "snapshot_blkdev -n uses the image that is there" {
    disk
    qemu-img create -q -f qcow2 -b disk.img -F qcow2 ready.img
    run mg -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c 'snapshot_blkdev -n virtio0 ready.img qcow2' \
        -c 'qemu-io virtio0 "write -P 7 0 64k"' -c 'expect chain virtio0 = disk <- ready'
    assert_status 0
    read_pattern ready.img 0 64k 7
    read_pattern disk.img 0 64k 1
}

@test "names that are not UTF-8 are recorded as they are, and merged by" {
    local a=$'a\xe9.img' b=$'b\xff.img'
    qemu-img create -q -f qcow2 "$a" 1M
    run mg -guest profile=none -drive "file=$a,if=virtio,format=qcow2" -c "snapshot_blkdev virtio0 $b" \
        -c "snapshot_blkdev virtio0 c.img" -c "block_stream virtio0 0 $a" -c wait -c 'info history'
    assert_status 0
    assert_output "0: 'snapshot_blkdev virtio0 b\xff.img'"
    [ "$(qemu-img info c.img | sed -n 's/^backing file: //p')" = "$a" ]
    [ "$(qemu-img info "$b" | sed -n 's/^backing file: //p')" = "$a" ]
}

@test "a snapshot of a raw image, and of one behind a filter, is made as that of any disk" {
    qemu-img create -q -f qcow2 a.img 1M
    qemu-img create -q -f raw r.img 1M
    qemu-img create -q -f qcow2 t.img 1M
    run mg -guest profile=none -drive file=a.img,if=virtio,format=qcow2,node-name=top -drive file=r.img,if=virtio,format=raw \
        -object throttle-group,id=g,x-iops-total=100000 -drive if=virtio,driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=t.img \
        -c 'snapshot_blkdev virtio0 one.img' -c 'snapshot_blkdev virtio1 two.img' -c 'snapshot_blkdev virtio2 three.img' \
        -c 'info block'
    assert_status 0
    assert_output "Formatting 'two.img', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1048576 backing_file=r.img backing_fmt=raw"
    assert_output "Formatting 'three.img', fmt=qcow2"
    [ "$(backing_of one.img) $(backing_of two.img) $(backing_of three.img)" = 'a.img r.img t.img' ]
}
