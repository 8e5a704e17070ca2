#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img snapshot makes, applies and deletes internal snapshots as qemu-img does, and what it leaves is qemu-img's, too.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
}

make_image() { # OPTIONS: three states, of which the first has a snapshot
    qemu-img create -q -f qcow2 -o "$1" images/a.qcow2 4M
    qemu-io -c 'write -q -P 1 0 1M' images/a.qcow2
    qemu-img convert -O raw images/a.qcow2 s1.raw
    qemu-img snapshot -c s1 images/a.qcow2
    qemu-io -c 'write -q -P 2 512k 1M' -c 'write -q -z 256k 128k' images/a.qcow2
    qemu-img convert -O raw images/a.qcow2 now.raw
}

ours() {
    "$BUILD_DIR/merganser-img" snapshot "$@"
}

@test "what was made, written over, applied and deleted is as qemu-img would leave it" {
    local options i
    for options in compat=0.10 compat=1.1,cluster_size=512,refcount_bits=8 extended_l2=on lazy_refcounts=on; do
        rm -f images/*
        make_image "$options"
        ours -c s2 images/a.qcow2
        assert_clean images/a.qcow2
        qemu-io -c 'write -q -P 9 0 4M' images/a.qcow2
        [ "$options" = compat=0.10 ] || qemu-img resize -q images/a.qcow2 6M
        for i in s1 s2 s1; do
            ours -a $i images/a.qcow2
            assert_clean images/a.qcow2
            qemu-img compare -q images/a.qcow2 $([ $i = s1 ] && echo s1.raw || echo now.raw)
            qemu-io -c 'write -q -P 7 700k 10k' images/a.qcow2
            assert_clean images/a.qcow2
        done
        ours -d s1 images/a.qcow2
        assert_clean images/a.qcow2
        qemu-img snapshot -a s2 images/a.qcow2
        qemu-img compare -q images/a.qcow2 now.raw
        ours -d s2 images/a.qcow2
        assert_clean images/a.qcow2
        qemu-img compare -q images/a.qcow2 now.raw
        [ -z "$(qemu-img snapshot -l images/a.qcow2)" ]
    done
}

@test "compressed clusters are shared, too" {
    make_image compat=1.1
    qemu-img convert -c -O qcow2 now.raw images/c.qcow2
    ours -c one images/c.qcow2
    assert_clean images/c.qcow2
    qemu-io -c 'write -q -P 5 0 1M' images/c.qcow2
    ours -a one images/c.qcow2
    assert_clean images/c.qcow2
    qemu-img compare -q images/c.qcow2 now.raw
    ours -d one images/c.qcow2
    assert_clean images/c.qcow2
    qemu-img compare -q images/c.qcow2 now.raw
}

@test "complaints and exit codes are qemu-img's" {
    make_image compat=1.1
    qemu-img create -q -f qcow2 -o refcount_bits=1 images/one.qcow2 1M
    qemu-io -c 'write -q 0 64k' images/one.qcow2
    truncate -s 1M images/r.raw
    same 'img snapshot -a none a.qcow2' 'img snapshot -d none a.qcow2' 'img snapshot -d 1 a.qcow2' 'img snapshot -a 1 a.qcow2' \
        'img snapshot -c' 'img snapshot -c x -d y a.qcow2' 'img snapshot -l -c x a.qcow2' 'img snapshot -c a -c b a.qcow2' \
        'img snapshot -q -c x a.qcow2' 'img snapshot -U -c x a.qcow2' 'img snapshot -c x one.qcow2' \
        'img snapshot -c x r.raw 2>&1 | tail -n 1' 'img snapshot -a x r.raw 2>&1 | tail -n 1' \
        'img snapshot -d x r.raw 2>&1 | tail -n 1' 'img snapshot -c s1 a.qcow2; img snapshot -d s1 a.qcow2; img check a.qcow2' \
        'img snapshot -c x a.qcow2; img snapshot -l a.qcow2 | cut -c 1-36'
}

# Version 2 has no mark for a change under way: a kill may leave it with COPIED bits missing, which cost a copy each
# and nothing else; but never with counts that are too small.
@test "killed at any moment: the image and its snapshots are whole" {
    local options act n status
    for options in compat=0.10 compat=1.1; do
        rm -f images/*
        make_image $options
        for act in '-c s2' '-a s1' '-d s1'; do
            for ((n = 1 + ${#options} % 3; ; n += 3)); do
                cp images/a.qcow2 k.qcow2
                # shellcheck disable=SC2086
                (strace -f -o /dev/null -e inject=io_uring_enter,pwrite64,pwritev,fdatasync:signal=KILL:when=$n \
                    "$BUILD_DIR/merganser-img" snapshot $act k.qcow2) >kill.out 2>&1 && status=0 || status=$?
                [ $status = 137 ] || break
                qemu-img check k.qcow2 >check.out 2>&1 || true
                ! grep '^ERROR.*refcount=[0-9]* reference=' check.out
                qemu-img check -q -r all k.qcow2 || true
                assert_clean k.qcow2
                qemu-img compare -q k.qcow2 now.raw || { [ "$act" = '-a s1' ] && qemu-img compare -q k.qcow2 s1.raw; }
                if [ "$act" != '-d s1' ] || [ -n "$(qemu-img snapshot -l k.qcow2)" ]; then
                    qemu-img snapshot -a s1 k.qcow2
                    qemu-img compare -q k.qcow2 s1.raw
                fi
            done
            [ $status = 0 ]
            [ $n -gt 4 ]
        done
    done
}
