#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img map tells where everything lies as qemu-img does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 200k' -c 'write -q -z 1M 128k' a.qcow2
    qemu-img create -q -f raw r.raw 4M
    qemu-io -f raw -c 'write -q -P 1 1M 64k' -c 'write -q -P 2 3M 4k' r.raw
    cd ..
}

both() {
    local image
    for image; do
        same "img map $image" "img map --output=json $image"
    done
}

@test "single images" {
    head -c 100000 /dev/urandom >images/odd.raw
    qemu-img create -q -f qcow2 -o preallocation=metadata images/pre.qcow2 4M
    qemu-img create -q -f qcow2 -o compat=0.10 images/old.qcow2 4M
    qemu-io -c 'write -q 1M 1M' images/old.qcow2
    qemu-img create -q -f qcow2 images/big.qcow2 3G
    qemu-io -c 'write -q 1G 100k' -c 'write -q 2G 100k' images/big.qcow2
    both a.qcow2 r.raw odd.raw pre.qcow2 old.qcow2 big.qcow2
}

@test "chains of all kinds" {
    cd images
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    qemu-io -c 'write -q -P 4 100k 10k' b.qcow2
    qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 longer.qcow2 6M
    qemu-io -c 'write -q -P 9 5M 64k' longer.qcow2
    qemu-img create -q -f qcow2 -b r.raw -F raw c.qcow2
    qemu-io -c 'write -q 1100k 100k' c.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 -o extended_l2=on d.qcow2
    qemu-io -c 'write -q 100k 10k' -c 'write -q -z 64k 8k' -c 'write -q -z 180k 8k' d.qcow2
    cd ..
    both b.qcow2 longer.qcow2 c.qcow2 d.qcow2
}

@test "zero clusters that keep their place, and compressed ones" {
    seq 50000 >images/text
    qemu-img convert -c -O qcow2 images/text images/z.qcow2
    qemu-io -c 'write -q -z 64k 64k' images/a.qcow2
    both a.qcow2 z.qcow2
}

@test "a part of an image" {
    same 'img map --output=json --start-offset=100k --max-length=1M a.qcow2' 'img map -s 1M -l 100k a.qcow2' \
        'img map --output=json --start-offset=9M a.qcow2' 'img map --start-offset=9M a.qcow2'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img map' 'img map nope' 'img map --start-offset=x a.qcow2' 'img map --max-length=-1 a.qcow2' \
        'img map --output=xml a.qcow2' 'img map a b'
}
