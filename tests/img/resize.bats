#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img resize makes images longer and shorter as qemu-img does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' -c 'write -q -z 1M 128k' -c 'write -q -P 4 3M 1M' a.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 3M
    qemu-io -c 'write -q -P 5 128k 64k' b.qcow2
    truncate -s 4M r.raw
    cd ..
}

# resizes IMAGE ARGS...: to the same size, sound, with the same content.
resizes() {
    local image=$1 args
    shift
    for args; do
        same "img resize $args; qemu-img info $image | grep virtual; qemu-img check $image | head -2"
        same_content "copy-ours/$image" "copy-real/$image"
    done
}

@test "longer, shorter, as long as it was" {
    resizes a.qcow2 'a.qcow2 +1M' 'a.qcow2 10G' 'a.qcow2 4M' '-q a.qcow2 +1M' '--shrink a.qcow2 -1M' \
        '--shrink a.qcow2 100k' '--shrink a.qcow2 64k' '-f qcow2 a.qcow2 +512' 'a.qcow2 +1T'
    same 'img resize -f raw r.raw +1M; stat -c %s r.raw' 'img resize -f raw --shrink r.raw 1M; stat -c %s r.raw' \
        'img resize r.raw +1M'
}

@test "a new end does not show what lies below" {
    resizes b.qcow2 'b.qcow2 +512k' 'b.qcow2 8M'
}

@test "what was cut off does not come back" {
    local image=images/a.qcow2 program=$BUILD_DIR/merganser-img size
    for size in 3M 100k 65k 64k; do
        "$program" resize -q --shrink $image $size
        "$program" resize -q $image 4M
        read_pattern $image $size $((4096 * 1024 - $(numfmt --from=iec ${size^^}))) 0
        assert_clean $image
    done
    read_pattern $image 64k 0 0
}

@test "images of all kinds" {
    local option
    for option in compat=0.10 extended_l2=on cluster_size=512 refcount_bits=1 preallocation=metadata; do
        qemu-img create -q -f qcow2 -o $option images/x.qcow2 4M
        qemu-io -c 'write -q -P 3 100k 1M' images/x.qcow2
        resizes x.qcow2 'x.qcow2 +3M' '--shrink x.qcow2 1M' '--shrink x.qcow2 150k' 'x.qcow2 1G'
    done
}

@test "internal snapshots keep their size" {
    qemu-img snapshot -c one images/a.qcow2
    same 'img resize a.qcow2 +1M; qemu-img snapshot -a one a.qcow2; qemu-img info a.qcow2 | grep virtual; qemu-img check -q a.qcow2' \
        'img resize --shrink a.qcow2 1M; qemu-img snapshot -a one a.qcow2; qemu-img check -q a.qcow2; qemu-img convert a.qcow2 x; cksum x'
    qemu-img create -q -f qcow2 -o compat=0.10 images/a.qcow2 1M
    qemu-img snapshot -c one images/a.qcow2
    run_line ours 'img resize a.qcow2 +1M'
    diff copy-ours/a.qcow2 images/a.qcow2
}

@test "a resized image goes on in use" {
    "$BUILD_DIR/merganser-img" resize -q images/a.qcow2 100G
    qemu-io -c 'write -q -P 7 99G 64k' -c 'write -q -P 8 3M 64k' images/a.qcow2
    assert_clean images/a.qcow2
    read_pattern images/a.qcow2 99G 64k 7
    read_pattern images/a.qcow2 64k 256k 3
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img resize' 'img resize a.qcow2' 'img resize a.qcow2 foo' 'img resize a.qcow2 +' 'img resize a.qcow2 -1M' \
        'img resize a.qcow2 0' 'img resize a.qcow2 -9G' 'img resize a.qcow2 +100' 'img resize a.qcow2 +9E' \
        'img resize a.qcow2 1M 2M' 'img resize nope 1M' 'img resize -f foo a.qcow2 1M' 'img resize --foo a.qcow2 1M' \
        'img resize a.qcow2 7E'
}

# holds FORMAT IMAGE MODE: grown with MODE both have the same content, and ours as many bytes in the host's file.
holds() {
    local line="img resize -f $1 --preallocation=$3 $2 8M"
    same "$line"
    [ "$1" = raw ] || assert_clean "copy-ours/$2"
    qemu-img compare -q -f "$1" -F "$1" "copy-ours/$2" "copy-real/$2"
    local ours real
    ours=$(stat -c %b "copy-ours/$2") real=$(stat -c %b "copy-real/$2")
    [ $((ours - real)) -le 1024 ] && [ $((real - ours)) -le 1024 ]
}

@test "--preallocation gives the new part its place" {
    local mode
    qemu-img create -q -f qcow2 images/p.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' images/p.qcow2
    qemu-img create -q -f qcow2 -o extended_l2=on images/e.qcow2 3M
    qemu-img create -q -f raw images/long.raw 9M
    qemu-io -f raw -c 'write -q -P 9 0 9M' images/long.raw
    qemu-img create -q -f qcow2 -b long.raw -F raw images/o.qcow2 4M
    cp images/p.qcow2 images/s.qcow2
    qemu-img snapshot -c one images/s.qcow2
    qemu-img create -q -f raw images/p.raw 4M
    for mode in off metadata falloc full; do
        holds qcow2 p.qcow2 $mode
        holds qcow2 e.qcow2 $mode
        holds qcow2 o.qcow2 $mode
        holds qcow2 s.qcow2 $mode
        [ $mode = metadata ] || holds raw p.raw $mode
    done
    same 'img resize --preallocation=metadata p.qcow2 8M; qemu-img check p.qcow2'
}

@test "--preallocation is refused in qemu-img's words" {
    qemu-img create -q -f qcow2 images/p.qcow2 4M
    qemu-img create -q -f raw images/p.raw 4M
    same 'img resize --preallocation=foo p.qcow2 8M' 'img resize --preallocation=full p.qcow2 2M' \
        'img resize --shrink --preallocation=full p.qcow2 2M' 'img resize --preallocation=full p.qcow2 4M' \
        'img resize -f raw --preallocation=metadata p.raw 8M; stat -c %s p.raw' 'img resize p.qcow2 16E'
}

# Clusters that were used before have bytes of somebody else.
@test "--preallocation shows nothing of freed clusters" {
    local mode
    for mode in metadata falloc full; do
        qemu-img create -q -f qcow2 images/p.qcow2 4M
        qemu-io -c 'write -q -P 9 0 4M' images/p.qcow2
        qemu-img resize -q --shrink images/p.qcow2 1M
        qemu-img resize -q images/p.qcow2 2M
        "$BUILD_DIR/merganser-img" resize -q --preallocation=$mode images/p.qcow2 5M
        qemu-io -c 'read -q -P 9 0 1M' -c 'read -q -P 0 1M 4M' images/p.qcow2 >out
        ! grep -q . out || fail "$(cat out)"
        assert_clean images/p.qcow2
    done
}

@test "when there is no room for it the image keeps its size" {
    qemu-img create -q -f qcow2 images/p.qcow2 1M
    run bash -c 'ulimit -f 2048; exec "$1" resize --preallocation=full images/p.qcow2 64M' - "$BUILD_DIR/merganser-img"
    assert_status 1
    assert_output 'Could not preallocate the new part: File too large'
    assert_clean images/p.qcow2
    [ "$(qemu-img info --output=json images/p.qcow2 | jq '.["virtual-size"]')" = 1048576 ]
}
