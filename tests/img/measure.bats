#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img measure foretells what qemu-img does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' -c 'write -q -z 1M 128k' -c 'write -q -P 4 3M 1000' a.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 6M
    qemu-io -c 'write -q -P 5 128k 64k' b.qcow2
    qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
    qemu-img convert -O raw a.qcow2 r.raw
    cd ..
}

@test "images in both formats, for people and as JSON" {
    local image format
    for image in a.qcow2 b.qcow2 old.qcow2 r.raw; do
        for format in raw qcow2; do
            same "img measure -O $format $image" "img measure -O $format --output=json $image"
        done
    done
    same 'img measure a.qcow2' 'img measure -U -f qcow2 a.qcow2' \
        'img measure --image-opts driver=qcow2,file.filename=a.qcow2'
}

@test "options of the new image count" {
    local option
    for option in cluster_size=4k refcount_bits=1 extended_l2=on compat=0.10 preallocation=full preallocation=falloc \
        preallocation=metadata backing_file=x,backing_fmt=qcow2 cluster_size=2M,refcount_bits=64; do
        same "img measure -O qcow2 -o $option b.qcow2" "img measure -O qcow2 -o $option --size 10G"
    done
}

@test "a size alone" {
    same 'img measure --size 1G' 'img measure --size 1000' 'img measure -O qcow2 --size 1000' 'img measure -O qcow2 --size 1T' \
        'img measure -O qcow2 --size 0' 'img measure --size x' 'img measure --size 9E'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img measure' 'img measure --size 1G a.qcow2' 'img measure -O foo a.qcow2' 'img measure -O qcow2 -o foo=bar a.qcow2' \
        'img measure -O qcow2 -o cluster_size=3 a.qcow2' 'img measure -O qcow2 -o refcount_bits=3 a.qcow2' \
        'img measure -f raw' 'img measure a b' 'img measure nope' 'img measure -f foo a.qcow2' 'img measure --output=x a.qcow2'
}

@test "-l measures an internal snapshot" {
    qemu-img create -q -f qcow2 images/s.qcow2 4M
    qemu-io -c 'write -q -P 1 0 200k' images/s.qcow2
    qemu-img snapshot -c one images/s.qcow2
    qemu-io -c 'write -q -P 2 100k 1M' images/s.qcow2
    same 'img measure -l one -O qcow2 s.qcow2' 'img measure -l snapshot.id=1 -O qcow2 --output=json s.qcow2' \
        'img measure -l one s.qcow2' 'img measure -l nope s.qcow2' 'img measure -l one --size 1M' \
        'img measure -l snapshot.foo=1 s.qcow2'
}
