#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img create says and makes what qemu-img does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    qemu-img create -q -f qcow2 images/a.qcow2 4M
    mkdir images/d
}

# What the image is, for the real qemu-img; what the host allocated for it may differ.
judged='qemu-img info x | grep -v "^disk size"; qemu-img check x'

@test "a raw image is a file of zeroes" {
    same 'img create x 1M; ls -l x | cut -d" " -f1-5' 'img create -q -f raw x 100; stat -c %s x' 'img create x 1.5k' \
        'img create -f raw -o preallocation=full x 1M; ls -s x' 'img create -o preallocation=falloc x 1M; ls -s x'
}

@test "a qcow2 image has the layout of qemu-img's, byte for byte" {
    same 'img create -f qcow2 x 10M; cksum x' 'img create -f qcow2 -o compat=0.10 x 1G; cksum x' \
        'img create -f qcow2 -o cluster_size=512 x 3M; cksum x' \
        'img create -f qcow2 -b a.qcow2 -F qcow2 x; cksum x'
}

@test "options are printed as they were understood" {
    local option
    for option in cluster_size=4k refcount_bits=1 lazy_refcounts=on compat=v2 compat=1.1 compression_type=zstd \
        extended_l2=on preallocation=metadata preallocation=falloc preallocation=full preallocation=off \
        nocow=off encryption=off cluster_size=2M,extended_l2=yes,refcount_bits=64; do
        same "img create -f qcow2 -o $option x 10M; $judged"
    done
    same "img create -f qcow2 -o cluster_size=64k -o refcount_bits=8 x 1M; $judged" "img create -f qcow2 -o size=3M x; $judged"
}

@test "wrong options are refused in qemu-img's words" {
    local option
    for option in foo=bar cluster_size=3k cluster_size=1 cluster_size=x refcount_bits=3 refcount_bits=x compat=9 \
        lazy_refcounts=maybe preallocation=foo compat=0.10,lazy_refcounts=on compat=0.10,extended_l2=on \
        extended_l2=on,cluster_size=4k size=1M , cluster_size=64k, backing_fmt=qcow2 compression_type=lzma; do
        same "img create -f qcow2 -o $option x 1M"
    done
    same 'img create -o cluster_size=1k x 1M' 'img create -o preallocation=foo x 1M' \
        'img create -o preallocation=metadata x 1M' 'img create -f qcow2 -o size=-1 x'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img' 'img foo' 'img -x' 'img create' 'img create x' 'img create -f' 'img create -z x 1M' 'img create --foo' \
        'img create -f foo x 1M' 'img create -f qcow2 x 1Z' 'img create x -1' 'img create x 1M 2M' 'img create x 9E' \
        'img create -f qcow2 foo:x 1M' 'img create -f qcow2 nodir/x 1M' 'img create -f foo -o help'
}

@test "a backing file gives the size and must say its format" {
    same "img create -f qcow2 -b a.qcow2 -F qcow2 x; $judged" "img create -f qcow2 -b a.qcow2 -F qcow2 x 8M; $judged" \
        "img create -f qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 x; $judged" \
        'img create -f qcow2 -b ../a.qcow2 -F qcow2 d/x' 'img create -f qcow2 -b a.qcow2 -F qcow2 d/x' \
        'img create -f qcow2 -b a.qcow2 x' 'img create -f qcow2 -b a.qcow2 -F foo x' 'img create -f qcow2 -F qcow2 x 1M' \
        'img create -f qcow2 -b nope -F qcow2 x' 'img create -f qcow2 -b x -F qcow2 x' 'img create -f qcow2 -b "" x 1M' \
        'img create -f raw -b a.qcow2 -F qcow2 x' 'img create -f qcow2 -o preallocation=full -b a.qcow2 -F qcow2 x'
}

@test "-u does not look at the backing file" {
    same "img create -f qcow2 -u -b nope -F qcow2 x 1M; qemu-img info x | grep back" 'img create -f qcow2 -u -b nope x 1M' \
        'img create -f qcow2 -u -b nope -F qcow2 x' 'img create -f qcow2 -u -b a,b -F qcow2 x 1M' \
        'img create -f qcow2 -o backing_file=a,,b,backing_fmt=qcow2 -u x 1M'
}

@test "an image in use is not overwritten" {
    mg_start -drive file=images/a.qcow2,if=virtio,format=qcow2
    mg_ready
    run "$BUILD_DIR/merganser-img" create -f raw images/a.qcow2 1M
    assert_status 1
    assert_output 'Failed to get "write" lock'
    run "$BUILD_DIR/merganser-img" create -f qcow2 images/a.qcow2 1M
    assert_status 1
    assert_output 'Failed to get "write" lock'
    [ "$(virtual_size images/a.qcow2)" = 4194304 ]
}

@test "-o help lists the options that there are" {
    run "$BUILD_DIR/merganser-img" create -f qcow2 -o help
    assert_status 0
    assert_output '  cluster_size=<size>    - qcow2 cluster size'
    refute_output encrypt
    run "$BUILD_DIR/merganser-img" create -o help x
    assert_output '  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)'
    [ ! -e x ]
}

@test "a raw image for which there is no room gives back what it took" {
    local how
    [ "$(id -u)" = 0 ] || skip "only root may mount a small file system"
    mkdir small
    mount -t tmpfs -o size=1m merganser-test small 2>/dev/null || skip "mounting a small file system needs root"
    for how in full falloc; do
        run "$BUILD_DIR/merganser-img" create -f raw -o "preallocation=$how" small/new 4M
        [ "$status" = 1 ] && [[ $output == *"No space left on device" ]] && [ "$(stat -c %b small/new)" = 0 ] || {
            umount small
            fail "$how: $output"
        }
    done
    umount small
}
