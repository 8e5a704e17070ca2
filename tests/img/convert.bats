#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img convert makes images with the content, and the holes, of those that qemu-img makes.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f raw r.raw 4M
    qemu-io -f raw -c 'write -q -P 1 1M 64k' -c 'write -q -P 2 3M 4k' r.raw
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-io -c 'write -q -P 3 64k 256k' -c 'write -q -z 1M 128k' a.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    qemu-io -c 'write -q -P 4 128k 64k' -c 'write -q -z 256k 64k' b.qcow2
    head -c 100000 /dev/zero | tr '\0' x >odd.raw
    cd ..
}

# converts ARGS...: with these arguments both make an x of the same content, sound and of the same size.
converts() {
    local args
    for args; do
        same "img convert $args x; [ ! -e x ] || { qemu-img info x | grep -v '^disk size'; qemu-img check -q x; }"
        same_content copy-ours/x copy-real/x
    done
}

# allocates ARGS...: ... and as many clusters are in use.
allocates() {
    converts "$@"
    local args
    for args; do
        same "img convert $args x; qemu-img check x | grep allocated"
    done
}

@test "between raw and qcow2" {
    allocates '-O qcow2 r.raw' '-O qcow2 b.qcow2' '-O qcow2 odd.raw' '-T none -t none -O qcow2 a.qcow2'
    converts r.raw a.qcow2 odd.raw '-f qcow2 -O raw b.qcow2' '-t writethrough a.qcow2'
}

@test "into images of all kinds" {
    local option
    for option in compat=0.10 cluster_size=4k extended_l2=on,cluster_size=32k refcount_bits=64 compression_type=zstd \
        preallocation=metadata lazy_refcounts=on; do
        converts "-O qcow2 -o $option r.raw"
    done
    converts '-O qcow2 -o size=1M r.raw' '-o preallocation=full r.raw'
}

@test "several images one behind the other" {
    converts 'r.raw a.qcow2 odd.raw' '-O qcow2 r.raw a.qcow2 odd.raw'
}

@test "-S says how many zeroes make a hole" {
    converts '-S 0 r.raw' '-S 1M r.raw'
    allocates '-S 0 -O qcow2 r.raw' '-S 64k -O qcow2 r.raw' '-S 512 -O qcow2 a.qcow2'
}

@test "a raw image has its holes" {
    run_line ours 'img convert a.qcow2 x'
    [ "$(stat -c %b copy-ours/x)" -le $((256 * 2 + 16)) ]
    run_line ours 'img convert -S 0 a.qcow2 x'
    [ "$(stat -c %b copy-ours/x)" -ge $((4096 * 2)) ]
}

@test "-W and -m change the order, not the content" {
    converts '-W -m 16 -O qcow2 r.raw' '-m 1 -O qcow2 b.qcow2' '-W b.qcow2'
}

@test "-B leaves to the backing file what lies there" {
    allocates '-B a.qcow2 -F qcow2 -O qcow2 b.qcow2' '-O qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 b.qcow2'
    (
        cd images
        qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 longer.qcow2 6M
        qemu-io -c 'write -q -P 5 5M 64k' -c 'write -q -z 4500k 64k' longer.qcow2
    )
    allocates '-B a.qcow2 -F qcow2 -O qcow2 longer.qcow2'
}

@test "-n writes into what is there" {
    same 'img convert -n r.raw odd.raw' 'img convert -n -O raw a.qcow2 r.raw; cksum r.raw' \
        'img convert -n -O qcow2 r.raw a.qcow2; qemu-img check -q a.qcow2; qemu-img compare a.qcow2 r.raw' \
        'img convert -n --target-is-zero -O raw a.qcow2 r.raw; cksum r.raw' \
        'img convert --target-image-opts -n a.qcow2 driver=raw,file.filename=r.raw; cksum r.raw'
}

@test "-p shows progress, -q does not" {
    same 'img convert -p -O qcow2 r.raw x' 'img convert -p -q r.raw x' 'img convert -p -f raw nope x'
}

@test "wrong command lines are refused in qemu-img's words" {
    local args
    for args in '' a.qcow2 '-O foo a.qcow2 x' '-O qcow2 -o foo=1 a.qcow2 x' '-f foo a.qcow2 x' 'nope x' '-n a.qcow2 x' \
        '-O qcow2 -o cluster_size=3 a.qcow2 x' '-S x a.qcow2 x' '-S 1 a.qcow2 x' '-m 99 a.qcow2 x' '-m x a.qcow2 x' \
        '-B a.qcow2 -O qcow2 b.qcow2 x' '-B a.qcow2 -F qcow2 -O raw b.qcow2 x' '-B nope -F qcow2 -O qcow2 b.qcow2 x' \
        '-t foo a.qcow2 x' '-T foo a.qcow2 x' '-O qcow2 a.qcow2 nodir/x' '-O raw a.qcow2 a.qcow2' \
        '--target-is-zero a.qcow2 x' '-B a.qcow2 -F qcow2 -O qcow2 b.qcow2 r.raw x' '-F qcow2 -O qcow2 b.qcow2 x' \
        '-n -o size=1M a.qcow2 r.raw' '--image-opts -f qcow2 b.qcow2 x' '-O foo -o help'; do
        same "img convert $args"
    done
}

@test "a full disk is told" {
    run bash -c 'ulimit -f 256; exec "$1" convert images/a.qcow2 -O qcow2 -S 0 x' - "$BUILD_DIR/merganser-img"
    assert_status 1
    assert_output 'File too large'
}

# The compressors differ in nothing but how they pack: what is compared is content, counts, and about the length.
@test "-c packs compressed clusters that qemu-img reads, in any format" {
    local options ours real
    seq 400000 | head -c 2500K >images/c.raw
    head -c 300000 /dev/urandom >>images/c.raw
    truncate -s 5M images/c.raw
    printf x >>images/c.raw
    truncate -s $((5 * 1024 * 1024 + 512)) images/c.raw
    for options in compat=0.10 compression_type=zstd cluster_size=512 cluster_size=2M extended_l2=on \
        refcount_bits=1 refcount_bits=2,cluster_size=4k; do
        same "img convert -c -f raw -O qcow2 -o $options c.raw c.qcow2" \
            "img convert -c -W -m 16 -f raw -O qcow2 -o $options c.raw c.qcow2"
        assert_clean copy-ours/c.qcow2
        qemu-img compare -q -f raw -F qcow2 images/c.raw copy-ours/c.qcow2
        ours=$(stat -c %s copy-ours/c.qcow2) real=$(stat -c %s copy-real/c.qcow2)
        [ "$ours" -le $((real * 11 / 10 + 65536)) ]
        qemu-io -c 'write -q -P 9 100k 1M' copy-ours/c.qcow2
        assert_clean copy-ours/c.qcow2
    done
}

@test "-c leaves zeroes out, joins sources, keeps a backing file, and is for qcow2 only" {
    seq 300000 | head -c 1000K >images/c.raw
    qemu-img create -q -f qcow2 images/base.qcow2 4M
    qemu-io -c 'write -q -P 5 0 2M' images/base.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 images/top.qcow2 5M
    qemu-io -c 'write -q -P 6 1000k 100k' -c 'write -q -z 64k 128k' images/top.qcow2
    same 'img convert -c -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 o.qcow2; img compare top.qcow2 o.qcow2; img map o.qcow2 | cut -c 1-24,38-' \
        'img convert -c -O qcow2 top.qcow2 o.qcow2; img compare top.qcow2 o.qcow2' \
        'img convert -c -f raw -O qcow2 c.raw c.raw o.qcow2; cat c.raw c.raw >cc.raw; img compare -f raw -F qcow2 cc.raw o.qcow2' \
        'img convert -c -S 0 -f raw -O qcow2 c.raw o.qcow2; img compare -f raw -F qcow2 c.raw o.qcow2' \
        'img convert -c -O raw top.qcow2 o.raw' 'img convert -c -n -O raw top.qcow2 c.raw' \
        'img convert -c -O qcow2 -o preallocation=metadata top.qcow2 o.qcow2'
}

make_snapshots() { # with.qcow2: over a.qcow2; two snapshots of other sizes and contents than the active state
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 images/with.qcow2 5M
    qemu-io -c 'write -q -P 1 0 20k' images/with.qcow2
    qemu-img snapshot -c one images/with.qcow2
    qemu-io -c 'write -q -P 2 100k 1M' images/with.qcow2
    qemu-img snapshot -c two images/with.qcow2
    qemu-img resize -q images/with.qcow2 6M
    qemu-io -c 'write -q -P 5 0 3M' images/with.qcow2
}

@test "-l converts an internal snapshot, by ID, by name, or both" {
    make_snapshots
    converts '-l one with.qcow2' '-l 2 with.qcow2' '-l snapshot.id=1 -O qcow2 with.qcow2' \
        '-l snapshot.name=two,snapshot.id=2 -U with.qcow2' '-c -l two -O qcow2 with.qcow2'
    allocates '-l one -B a.qcow2 -F qcow2 -O qcow2 with.qcow2'
    same 'img convert -l snapshot.id=1,snapshot.name=two with.qcow2 x' 'img convert -l snapshot.id=9 with.qcow2 x' \
        'img convert -l snapshot.foo=9 with.qcow2 x' 'img convert -l nope with.qcow2 x' 'img convert -l one r.raw x' \
        'img convert -l one with.qcow2 with.qcow2 x' 'img convert -l' "img convert -l '' with.qcow2 x"
}

@test "-l keeps what a snapshot has behind the disk's end" {
    qemu-img create -q -f qcow2 images/large.qcow2 8M
    qemu-io -c 'write -q -P 7 7M 64k' images/large.qcow2
    qemu-img convert -O raw images/large.qcow2 large.raw
    qemu-img snapshot -c all images/large.qcow2
    qemu-img resize -q --shrink images/large.qcow2 2M
    "$BUILD_DIR/merganser-img" convert -l all images/large.qcow2 large.out
    cmp large.raw large.out
}

@test "-C leaves the copying to the host" {
    make_snapshots
    converts '-C r.raw' '-C -W -O qcow2 a.qcow2' '-C odd.raw' '-C -O qcow2 b.qcow2' '-C -O qcow2 r.raw a.qcow2 odd.raw' \
        '-C -l one with.qcow2' '-C -O qcow2 -o extended_l2=on b.qcow2'
    same 'img convert -C -S 4k a.qcow2 x' 'img convert -C -S 0 a.qcow2 x' 'img convert -C -c -O qcow2 a.qcow2 x' \
        'img convert -C --salvage a.qcow2 x'
}

# break_streams NAME: three compressed clusters of it are noise.
break_streams() {
    local l1 l2 i stream
    l1=$(od -An -j 40 -N 8 -t u8 --endian=big "$1")
    l2=$(od -An -j $((l1)) -N 8 -t u8 --endian=big "$1")
    for i in 2 3 7; do
        stream=$(od -An -j $(((l2 & 0xfffffffffffe00) + 8 * i)) -N 8 -t u8 --endian=big "$1")
        head -c 64 /dev/zero | tr '\0' '\377' |
            dd of="$1" bs=1 seek=$((stream & 0x3fffffffffffff)) conv=notrunc status=none
    done
}

@test "--salvage makes zeroes of what cannot be read, and says so" {
    seq 400000 | head -c 1M >images/t.raw
    qemu-img convert -c -f raw -O qcow2 images/t.raw images/bad.qcow2
    break_streams images/bad.qcow2
    same 'img convert --salvage bad.qcow2 x 2>e; sort e; cksum x' 'img convert -q --salvage bad.qcow2 x; cksum x' \
        'img convert --salvage -c -O qcow2 bad.qcow2 x 2>e; sort e; img convert -O raw x y; cksum y'
    run_line ours 'img convert bad.qcow2 x'
    [ "$(tail -n 1 ours.out)" = 'exit code 1' ]
    grep 'error while reading at byte' ours.err
}

@test "-r limits the rate" {
    same 'img convert -r foo a.qcow2 x' 'img convert -r -1 a.qcow2 x' 'img convert -r 8E a.qcow2 x'
    converts '-r 0 a.qcow2' '-r 1G -W -O qcow2 b.qcow2'
    seq 2000000 | head -c 8M >images/much.raw
    local begin=${EPOCHREALTIME/./}
    "$BUILD_DIR/merganser-img" convert -f raw -O raw -r 12M images/much.raw x
    [ $((${EPOCHREALTIME/./} - begin)) -ge 400000 ] # the last of four pieces waits for three
    cmp images/much.raw x
}

@test "SIGUSR1 asks for the progress" {
    seq 2000000 | head -c 8M >images/much.raw
    "$BUILD_DIR/merganser-img" convert -f raw -O raw -r 8M images/much.raw x 2>progress 3>&- &
    local pid=$!
    while ! [ -s x ]; do sleep 0.02; done
    kill -USR1 $pid
    wait $pid
    grep -x '    ([0-9.]*/100%)' progress
}

@test "--bitmaps is refused only where it would lose some" {
    qemu-img create -q -f qcow2 images/m.qcow2 4M
    qemu-img bitmap --add images/m.qcow2 one
    converts '--bitmaps -O qcow2 a.qcow2' '--bitmaps --skip-broken-bitmaps -O qcow2 a.qcow2' '-O qcow2 m.qcow2'
    same 'img convert --bitmaps -O qcow2 r.raw x' 'img convert --bitmaps -O qcow2 a.qcow2 m.qcow2 x' \
        'img convert --skip-broken-bitmaps -O qcow2 a.qcow2 x' 'img convert --bitmaps -O raw a.qcow2 x'
    run_line ours 'img convert --bitmaps -O qcow2 m.qcow2 x; [ ! -e x ]'
    grep 'persistent bitmaps, and they cannot be copied' ours.err
}
