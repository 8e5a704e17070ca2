#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img compare judges as qemu-img does, with its exit codes.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' -c 'write -q -z 1M 128k' a.qcow2
    qemu-img convert -O raw a.qcow2 a.raw
    cp a.raw other.raw
    printf x | dd of=other.raw bs=1 seek=2000000 conv=notrunc status=none
    cd ..
}

@test "the same content in another format is the same" {
    same 'img compare a.qcow2 a.raw' 'img compare -q a.qcow2 a.raw' 'img compare -p a.qcow2 a.raw' \
        'img compare -f qcow2 -F raw a.qcow2 a.raw' 'img compare -T none -U a.raw a.qcow2'
}

@test "the first difference is named" {
    same 'img compare a.qcow2 other.raw' 'img compare other.raw a.qcow2' 'img compare -q a.qcow2 other.raw' \
        'img compare -p a.qcow2 other.raw'
    printf x | dd of=images/other.raw bs=1 seek=0 conv=notrunc status=none
    same 'img compare a.qcow2 other.raw'
    printf x | dd of=images/other.raw bs=1 seek=100000 conv=notrunc status=none
    same 'img compare a.raw other.raw'
}

@test "what is longer may hold zeroes there" {
    cp images/a.raw images/long.raw
    truncate -s 5M images/long.raw
    same 'img compare a.qcow2 long.raw' 'img compare long.raw a.qcow2' 'img compare -s long.raw a.qcow2'
    printf x | dd of=images/long.raw bs=1 seek=4500000 conv=notrunc status=none
    same 'img compare a.qcow2 long.raw' 'img compare long.raw a.qcow2'
}

@test "-s wants it stored alike" {
    cp images/a.qcow2 images/b.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 images/over.qcow2
    same 'img compare -s a.qcow2 b.qcow2' 'img compare -s a.qcow2 a.raw' 'img compare -s a.qcow2 over.qcow2'
    qemu-io -c 'write -q -z 2M 64k' images/b.qcow2
    same 'img compare -s a.qcow2 b.qcow2' 'img compare a.qcow2 b.qcow2'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img compare' 'img compare a.qcow2' 'img compare a.qcow2 nope' 'img compare nope a.qcow2' \
        'img compare -f foo a.qcow2 a.raw' 'img compare -T foo a.qcow2 a.raw' 'img compare a b c' \
        'img compare --image-opts -f raw a.raw a.raw'
}
