#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# How a base may be named, and what is recorded for it.

load ../lib.bash

stream_to() {
    make_chain file-A.img file-B.img file-C.img
    run mg -drive "$(chain_drive A B C)" -c "block_stream virtio0 $1" -c wait -c 'expect chain virtio0 = A <- C'
    assert_status 0
    [ "$(backing_of file-C.img)" = file-A.img ]
}

@test "a base may be named by its file name as recorded" { stream_to file-A.img; }
@test "a base may be named by its path" { stream_to "$PWD/file-A.img"; }
@test "a base may be named by its node name" { stream_to node-A; }
@test "a base may be named by its base name without the suffix" { stream_to file-A; }
@test "a base may be named by the letter that info chain shows" { stream_to A; }

@test "what is neither a size nor an image gets QEMU's line and the chain's candidates" {
    make_chain file-A.img file-B.img
    run mg -drive "$(chain_drive A B)" --on-error=continue -c 'block_stream virtio0 nonsense'
    assert_status 3
    assert_output 'invalid size'
    assert_output 'file-A.img'
}

@test "a base that is not in the chain changes nothing" {
    make_chain file-A.img file-B.img
    cp file-B.img before.img
    run mg -drive "$(chain_drive A B)" -guest profile=none -c 'block_stream virtio0 0 other.img'
    assert_status 3
    assert_output "Error: Can't find 'other.img' in the backing chain"
    cmp before.img file-B.img
}

@test "a relative base is recorded so that it resolves from the overlay's directory" {
    mkdir sub
    (cd sub && make_chain file-A.img file-B.img file-C.img)
    run mg -drive file=sub/file-C.img,if=virtio,format=qcow2 -c 'block_stream virtio0 0 file-A.img' -c wait
    assert_status 0
    [ "$(backing_of sub/file-C.img)" = file-A.img ]
    qemu-img compare -q sub/file-C.img sub/file-C.img
    assert_chain sub/file-C.img file-C.img file-A.img
}

@test "a raw base under a qcow2 overlay stays the base" {
    qemu-img create -q -f raw base.raw 16M
    qemu-io -f raw -c 'write -q -P 1 0 3M' base.raw >/dev/null
    qemu-img create -q -f qcow2 -b base.raw -F raw mid.img
    qemu-io -f qcow2 -c 'write -q -P 2 1M 5M' mid.img >/dev/null
    qemu-img create -q -f qcow2 -b mid.img -F qcow2 top.img
    offline_merge top.img merged.raw
    run mg -drive file=top.img,if=virtio,format=qcow2 -c 'block_stream virtio0 base.raw' -c wait
    assert_status 0
    [ "$(backing_of top.img)" = base.raw ]
    [ "$(qemu-img info --output=json top.img | jq -r '."backing-filename-format"')" = raw ]
    assert_clean top.img
    same_content merged.raw top.img
}

@test "a raw base under a qcow2 overlay is merged into it" {
    qemu-img create -q -f raw base.raw 16M
    qemu-io -f raw -c 'write -q -P 1 0 3M' -c 'write -q -P 3 9M 12k' base.raw >/dev/null
    qemu-img create -q -f qcow2 -b base.raw -F raw top.img
    offline_merge top.img merged.raw
    run mg -drive file=top.img,if=virtio,format=qcow2 -c 'block_stream virtio0' -c wait
    assert_status 0
    [ -z "$(backing_of top.img)" ]
    assert_clean top.img
    same_content merged.raw top.img
}

@test "behind the end of the base nothing is written, not even where zeroes would have to be data" {
    qemu-img create -q -f qcow2 -o compat=0.10 base.img 1M
    qemu-io -c 'write -q -P 1 0 1M' base.img
    qemu-img create -q -f qcow2 -o compat=0.10 -b base.img -F qcow2 middle.img 1G
    qemu-io -c 'write -q -P 2 512k 64k' middle.img
    qemu-img create -q -f qcow2 -o compat=0.10 -b middle.img -F qcow2 top.img
    qemu-img convert -O raw top.img before.raw
    run mg -guest profile=none -drive file=top.img,if=virtio,format=qcow2 -c 'block_stream virtio0 base.img' -c 'wait virtio0 done 60s' -c quit
    assert_status 0
    qemu-img compare -q top.img before.raw
    assert_clean top.img
    [ "$(stat -c %s top.img)" -lt 1000000 ]
}
