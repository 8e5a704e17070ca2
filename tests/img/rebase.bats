#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img rebase changes the backing file and not the content, as qemu-img does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f raw r.raw 4M
    qemu-io -f raw -c 'write -q -P 1 1M 64k' -c 'write -q -P 2 3M 4k' r.raw
    qemu-img create -q -f raw short.raw 2M
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' -c 'write -q -z 1M 128k' a.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    qemu-io -c 'write -q -P 4 128k 64k' b.qcow2
    qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 6M
    qemu-io -c 'write -q -P 5 5M 64k' c.qcow2
    cd ..
}

# rebases IMAGE ARGS...: to the same backing file, sound, with the content it had.
rebases() {
    local image=$1 args
    shift
    for args; do
        same "img rebase $args; qemu-img info $image | grep backing; qemu-img check -q $image"
        same_content "copy-ours/$image" "images/$image"
    done
}

@test "onto an image with other content, onto none" {
    rebases b.qcow2 '-b r.raw -F raw b.qcow2' '-b short.raw -F raw b.qcow2' "-b '' b.qcow2" '-b a.qcow2 -F qcow2 b.qcow2' \
        '-f qcow2 -t none -b r.raw -F raw b.qcow2' '-q -b r.raw -F raw b.qcow2'
    rebases c.qcow2 '-b a.qcow2 -F qcow2 c.qcow2' '-b short.raw -F raw c.qcow2' "-b '' c.qcow2"
}

@test "an image without a backing file gets one" {
    rebases a.qcow2 '-b r.raw -F raw a.qcow2'
}

@test "-u changes the name alone" {
    same 'img rebase -u -b nope -F qcow2 b.qcow2; qemu-img info b.qcow2 | grep backing' \
        "img rebase -u -b '' b.qcow2; qemu-img info b.qcow2 | grep -v '^disk size'" \
        'img rebase -u b.qcow2; qemu-img info b.qcow2 | grep -v "^disk size"'
    qemu-img create -q -f qcow2 -u -b gone -F qcow2 images/b.qcow2 4M
    same 'img rebase -u -b a.qcow2 -F qcow2 b.qcow2; qemu-img info b.qcow2 | grep backing' 'img rebase -b a.qcow2 -F qcow2 b.qcow2'
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img rebase' 'img rebase a.qcow2' 'img rebase -b a.qcow2 b.qcow2' 'img rebase -u -b nope b.qcow2' \
        'img rebase -b nope -F qcow2 b.qcow2' 'img rebase -b r.raw -F foo b.qcow2' 'img rebase -f raw -b r.raw -F raw r.raw' \
        'img rebase -b x nope' 'img rebase -t foo -b r.raw -F raw b.qcow2' 'img rebase -T foo -b r.raw -F raw b.qcow2' \
        'img rebase -b b.qcow2 -F qcow2 b.qcow2'
}

@test "an image that stood on nothing gets a backing file: what it did not hold stays zeroes, and takes no room" {
    local options
    qemu-img create -q -f raw images/full.raw 4M
    qemu-io -f raw -c 'write -q -P 9 0 4M' images/full.raw
    for options in compat=1.1 compat=0.10 extended_l2=on cluster_size=512; do
        qemu-img create -q -f qcow2 -o "$options" n.qcow2 4000000
        qemu-io -c 'write -q -P 3 1001k 9k' n.qcow2
        cp n.qcow2 before.qcow2
        "$BUILD_DIR/merganser-img" rebase -b images/full.raw -F raw n.qcow2
        qemu-img check -q n.qcow2
        same_content before.qcow2 n.qcow2
        [ "$options" = compat=0.10 ] || [ "$(stat -c %s n.qcow2)" -lt 1000000 ] || fail "$options: $(stat -c %s n.qcow2) bytes"
    done
}
