#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Bits and extensions of the header that ask something of a program that writes: the dirty bit, autoclear bits, what it does not know.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 x.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 10M' x.img >/dev/null
}

poke() {
    local escaped
    escaped=$(printf '%s' "$2" | sed 's/../\\x&/g')
    printf '%b' "$escaped" | dd of=x.img bs=1 seek="$(($1))" conv=notrunc status=none
}

# peek OFFSET LENGTH: as hex digits.
peek() {
    xxd -s "$(($1))" -l "$2" -c 64 -p x.img
}

# Zero all reference counts, as a crash under lazy_refcounts may leave them.
forget_counts() {
    dd if=/dev/zero of=x.img bs=64k seek=2 count=1 conv=notrunc status=none
    poke 72 0000000000000001
}

@test "a dirty image is repaired when it is opened for writing" {
    forget_counts
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none -c 'qemu-io virtio0 "write -P 2 30M 64k"'
    assert_status 0
    [ "$(peek 72 8)" = 0000000000000000 ]
    assert_clean x.img
    read_pattern x.img 0 10M 1
    read_pattern x.img 30M 64k 2
}

@test "a dirty image is only read when it is opened read-only" {
    forget_counts
    cp x.img before.img
    run mg -drive file=x.img,if=virtio,format=qcow2,readonly=on -guest profile=none \
        -c 'qemu-io virtio0 "read -P 1 0 10M"'
    assert_status 0
    cmp x.img before.img
}

@test "a dirty layer is repaired when a stream writes into it" {
    qemu-img create -q -f qcow2 base.img 64M
    qemu-io -f qcow2 -c 'write -q -P 3 20M 1M' base.img >/dev/null
    qemu-img rebase -q -u -f qcow2 -b base.img -F qcow2 x.img
    qemu-img create -q -f qcow2 -b x.img -F qcow2 top.img
    forget_counts
    run mg -drive file=top.img,if=virtio,format=qcow2,backing.node-name=mid -guest profile=none \
        -c 'block_stream mid' -c wait
    assert_status 0
    [ -z "$(backing_of x.img)" ]
    [ "$(peek 72 8)" = 0000000000000000 ]
    assert_clean x.img
    read_pattern x.img 0 10M 1
    read_pattern x.img 20M 1M 3
}

@test "an image that cannot be repaired is refused and left alone" {
    poke 0x30000 8000000012340000
    poke 72 0000000000000001
    cp x.img before.img
    run mg -drive file=x.img,if=none,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not repair dirty image: an L2 table at offset 0x12340000 lies beyond the end of the file"
    cmp x.img before.img
}

@test "autoclear bits are cleared by the first writer, not by a reader" {
    poke 88 fffffffffffffff0
    run mg -drive file=x.img,if=none,format=qcow2,readonly=on -c quit
    assert_status 0
    [ "$(peek 88 8)" = fffffffffffffff0 ]
    run mg -drive file=x.img,if=none,format=qcow2 -c quit
    assert_status 0
    [ "$(peek 88 8)" = 0000000000000000 ]
}

@test "bitmaps count as inconsistent after we have written" {
    qemu-img bitmap --add x.img b
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none -c 'qemu-io virtio0 "write -P 2 30M 64k"'
    assert_status 0
    run qemu-io -r -f qcow2 -c 'read -P 2 30M 64k' x.img
    assert_output "all bitmaps are now considered inconsistent"
    refute_output "verification failed"
}

@test "unknown extensions and compatible bits survive a change of the backing file" {
    qemu-img create -q -f qcow2 -b x.img -F qcow2 top.img
    mv x.img base.img
    mv top.img x.img
    qemu-img rebase -q -u -f qcow2 -b base.img -F qcow2 x.img
    poke 80 000000000000ff00
    # In the place of the names of the feature bits: an extension that nobody knows.
    poke 0x80 1234567800000180
    poke 0x88 "$(printf 'keep me' | xxd -p)"
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none -c 'block_stream virtio0' -c wait
    assert_status 0
    [ -z "$(backing_of x.img)" ]
    [ "$(peek 80 8)" = 000000000000ff00 ]
    xxd -p -l 1024 -c 1024 x.img | grep -q "1234567800000180$(printf 'keep me' | xxd -p)"
    assert_clean x.img
    read_pattern x.img 0 10M 1
}

@test "internal snapshots are kept" {
    qemu-img snapshot -c one x.img
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none \
        -c 'qemu-io virtio0 "write -P 2 5M 10M"' -c 'qemu-io virtio0 "write -z 1M 1M"'
    assert_status 0
    assert_clean x.img
    read_pattern x.img 5M 10M 2
    qemu-img snapshot -a one x.img
    read_pattern x.img 0 10M 1
    read_pattern x.img 10M 10M 0
    assert_clean x.img
}
