#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img check finds what qemu-img check finds, says it in the same words, and repairs it.

load ../lib.bash
load oracle.bash

# Of a.qcow2: the reference count block, the active L1 table and its first L2 table. Data lie in clusters 5 to 8.
counts=0x20000 l1=0x30000 l2=0x40000

setup() {
    common_setup
    oracle_setup
    qemu-img create -q -f qcow2 images/a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 200k' -c 'write -q -z 1M 128k' images/a.qcow2
}

# damage OFFSET HEX: these bytes into a.qcow2.
damage() {
    # shellcheck disable=SC2059
    printf "$(printf '%s' "$2" | sed 's/../\\x&/g')" |
        dd of=images/a.qcow2 bs=1 seek=$(($1)) conv=notrunc status=none
}

look() {
    same 'img check a.qcow2' 'img check --output=json a.qcow2' 'img check -q a.qcow2' 'img check -U -f qcow2 a.qcow2'
}

# mended OPTION: both repair it, and then both images are clean with the content they had.
mended() {
    same "img check -r $1 a.qcow2"
    cp images/a.qcow2 before.qcow2
    qemu-img check -q copy-ours/a.qcow2
    same_content copy-ours/a.qcow2 copy-real/a.qcow2
}

@test "sound images of all kinds" {
    local option
    look
    for option in compat=0.10 extended_l2=on refcount_bits=1 refcount_bits=64 cluster_size=512 lazy_refcounts=on \
        preallocation=metadata; do
        qemu-img create -q -f qcow2 -o $option images/a.qcow2 4M
        qemu-io -c 'write -q 100k 300k' -c 'write -q 2M 64k' -c 'write -q 1M 64k' images/a.qcow2
        look
    done
}

@test "compressed clusters and snapshots are counted" {
    seq 100000 >images/text
    qemu-img convert -c -O qcow2 images/text images/a.qcow2
    look
    qemu-io -c 'write -q 0 64k' images/a.qcow2
    qemu-img snapshot -c one images/a.qcow2
    qemu-io -c 'write -q 32k 64k' images/a.qcow2
    look
}

@test "a leak is found and given back" {
    damage $counts+10 0003
    damage $l2+16 0000000000000000
    look
    mended leaks
    mended all
}

@test "bits that mean nothing are errors in each kind of table" {
    cp images/a.qcow2 sound.qcow2
    for at in $l1+7 $l2+23 0x10000+7 0x10000+96; do
        damage $at 20
        look
        cp sound.qcow2 images/a.qcow2
    done
}

@test "a compressed cluster that may be written in place is an error" {
    seq 100000 >images/text
    qemu-img convert -c -O qcow2 images/text images/a.qcow2
    damage $l2 c0
    look
}

@test "leaks of a lost snapshot table are given back" {
    qemu-img snapshot -c one images/a.qcow2
    damage 60 00000000
    look
    mended leaks
    mended all
}

@test "a count that is too low is found and mended" {
    damage $l2+16 8000000000050000
    look
    mended all
}

@test "clusters without a count are found and counted anew" {
    damage $counts+10 0000
    look
    run_line ours 'img check -r all a.qcow2'
    assert_clean copy-ours/a.qcow2
    same_content copy-ours/a.qcow2 images/a.qcow2
    damage 0x10000 0000000000000000
    look
    run_line ours 'img check -r all a.qcow2'
    assert_clean copy-ours/a.qcow2
}

@test "flags that are wrong are found and mended" {
    damage $l2+8 0000000000050000
    look
    mended all
    damage $l1 0000000000040000
    look
    mended all
}

@test "references that cannot be are found and stay" {
    damage $l2+16 8000000010000000
    look
    same 'img check -r all a.qcow2' 'img check -r leaks a.qcow2'
    damage $l2+16 8000000000050200
    look
    damage $l1 8000000010000000
    look
}

@test "a reference count block outside of the image is found" {
    damage 0x10000 0000000007000000
    look
}

# A second entry of the table of counts: not aligned, outside, the first block again, the table itself, an L2 table, reserved bits.
@test "counts that lie where something else does are made anew, and not mended in place" {
    cp images/a.qcow2 sound.qcow2
    for entry in 20200 7000000 20000 10000 40000 21; do
        cp sound.qcow2 images/a.qcow2
        damage 0x10008 "$(printf %016x $((0x$entry)))"
        damage $counts+10 0003 # a leak
        same 'img check a.qcow2' 'img check -r leaks a.qcow2'
        same_content copy-ours/a.qcow2 sound.qcow2
        run_line ours 'img check -r all a.qcow2'
        assert_clean copy-ours/a.qcow2
        same_content copy-ours/a.qcow2 sound.qcow2
    done
}

@test "a first block of counts that is an L2 table leaves that table alone" {
    cp images/a.qcow2 sound.qcow2
    damage 0x10000 "$(printf %016x $l2)"
    same 'img check a.qcow2' 'img check -r leaks a.qcow2'
    same_content copy-ours/a.qcow2 sound.qcow2
    run_line ours 'img check -r all a.qcow2'
    assert_clean copy-ours/a.qcow2
    same_content copy-ours/a.qcow2 sound.qcow2
}

@test "a snapshot's table outside of the image is found" {
    qemu-img snapshot -c one images/a.qcow2
    damage "$((0x$(od -An -tx1 -j64 -N8 images/a.qcow2 | tr -d ' \n')))" 0000010000000000
    same 'img check a.qcow2' 'img check -r leaks a.qcow2' 'img check -r all a.qcow2'
}

@test "an L2 table that is not aligned is called so, whatever its entries are" {
    damage $l1 8000000000040200
    same 'img check a.qcow2' 'img check -r leaks a.qcow2'
}

@test "the dirty and the corrupt bit go when nothing else is wrong" {
    damage 79 01
    look
    mended all
    damage 79 02
    look
    mended leaks
    run qemu-img info copy-ours/a.qcow2
    assert_output 'corrupt: false'
}

@test "other formats have no checks" {
    truncate -s 1M images/r.raw
    same 'img check r.raw' 'img check -f raw a.qcow2' 'img check -q r.raw'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img check' 'img check nope' 'img check a b' 'img check -r foo a.qcow2' 'img check -T foo a.qcow2' \
        'img check --output=xml a.qcow2' 'img check -T none a.qcow2'
}

@test "an image is not repaired while others may write it" {
    same 'img check -U -r all a.qcow2' 'img check -U -r leaks a.qcow2'
}

@test "a cluster of zeroes whose place is askew becomes plain zeroes, as with qemu-img" {
    qemu-img create -q -f qcow2 theirs.img 1M
    qemu-io -f qcow2 -c 'write -q -P 1 0 256k' -c 'write -q -z 0 64k' -c 'write -q -z 128k 64k' theirs.img
    python3 -c '
import struct
with open("theirs.img", "r+b") as image:
    l1, = struct.unpack(">Q", image.read(104)[40:48])
    image.seek(l1)
    l2 = struct.unpack(">Q", image.read(8))[0] & 0xfffffffffffe00
    image.seek(l2)
    entry, = struct.unpack(">Q", image.read(8))
    image.seek(l2)
    image.write(struct.pack(">Q", entry + 512))'
    cp theirs.img ours.img
    local repair status_of_theirs
    for repair in leaks all; do
        run qemu-img check -r $repair theirs.img
        local theirs=$output status_of_theirs=$status
        run "$BUILD_DIR/merganser-img" check -r $repair ours.img
        [ "$output" = "$theirs" ] || fail "$repair: $output, not $theirs"
        [ "$status" = "$status_of_theirs" ]
    done
    qemu-img compare -q ours.img theirs.img
    qemu-img check -q ours.img
}
