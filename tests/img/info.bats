#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img info says what qemu-img does, for people and as JSON; snapshot -l lists as it does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    cd images
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    qemu-img create -q -f raw r.raw 4M
    head -c 1000 /dev/zero >odd.raw
    cd ..
}

both() {
    local image options
    for image; do
        for options in '' --output=json '--output=human -U' --backing-chain '--backing-chain --output=json'; do
            same "sync \$(find . -type f); img info $options $image" # (else its size on the disk is still to be settled)
        done
    done
}

@test "images of all kinds are described" {
    qemu-img create -q -f qcow2 -o compat=0.10 images/old.qcow2 1M
    qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=32k,refcount_bits=1 images/ext.qcow2 1M
    qemu-img create -q -f qcow2 -o compression_type=zstd,lazy_refcounts=on images/zstd.qcow2 1M
    both a.qcow2 r.raw odd.raw old.qcow2 ext.qcow2 zstd.qcow2
}

@test "chains are described down to their end" {
    mkdir images/d
    qemu-img create -q -f qcow2 -b ../b.qcow2 -F qcow2 images/d/c.qcow2 4M
    qemu-img create -q -f qcow2 -b r.raw -F raw images/e.qcow2
    both b.qcow2 d/c.qcow2 e.qcow2
}

@test "broken chains and loops are refused" {
    (
        cd images
        qemu-img create -q -f qcow2 -u -b nope -F qcow2 broken.qcow2 1M
        qemu-img create -q -f qcow2 -u -b l2.qcow2 -F qcow2 l1.qcow2 1M
        qemu-img create -q -f qcow2 -u -b l1.qcow2 -F qcow2 l2.qcow2 1M
    )
    both broken.qcow2 l1.qcow2
}

@test "internal snapshots are listed" {
    qemu-img snapshot -c s1 images/b.qcow2
    qemu-img snapshot -c 'a second one, äö' images/b.qcow2
    both b.qcow2
    same 'img snapshot -l b.qcow2' 'img snapshot -l a.qcow2' 'img snapshot -l r.raw' 'img snapshot -l nope' \
        'img snapshot b.qcow2' 'img snapshot' 'img snapshot -U -l b.qcow2' 'TZ=Asia/Tokyo img snapshot -l b.qcow2'
}

@test "the dirty and the corrupt bit are shown" {
    cp images/a.qcow2 images/corrupt.qcow2
    printf '\1' | dd of=images/a.qcow2 bs=1 seek=79 conv=notrunc status=none
    printf '\2' | dd of=images/corrupt.qcow2 bs=1 seek=79 conv=notrunc status=none
    both a.qcow2 corrupt.qcow2
}

@test "images are named by format, options and JSON as well" {
    same 'img info -f raw a.qcow2' 'img info -f qcow2 b.qcow2' 'img info -f foo a.qcow2' \
        'img info --image-opts driver=qcow2,file.filename=b.qcow2' 'img info --image-opts driver=qcow2,file.filename=nope' \
        'img info --image-opts -f qcow2 x' "img info 'json:{\"file\":{\"driver\":\"file\",\"filename\":\"b.qcow2\"}}'" \
        "img info 'json:{\"driver\":\"qcow2\",\"file.filename\":\"b.qcow2\"}'" \
        "img info 'json:{\"file.filename\":\"b.qcow2\",\"file\":{\"driver\":\"file\"}}'"
}

@test "wrong command lines are refused in qemu-img's words" {
    same 'img info' 'img info nope' 'img info a.qcow2 b.qcow2' 'img info --output=xml a.qcow2' 'img info -f' \
        'img info --output' 'img info . '
}

@test "an image in use is described with -U only" {
    mg_start -drive file=images/b.qcow2,if=virtio,format=qcow2
    mg_ready
    local program=$BUILD_DIR/merganser-img
    run "$program" info images/b.qcow2
    assert_status 1
    assert_output 'Failed to get shared "write" lock'
    assert_output 'Is another process using the image [images/b.qcow2]?'
    run "$program" info -U images/b.qcow2
    assert_status 0
    assert_output 'virtual size: 4 MiB (4194304 bytes)'
}

@test "--help names the commands that there are, and they are there" {
    local program=$BUILD_DIR/merganser-img name
    run "$program" --help
    assert_status 0
    for name in $(printf '%s\n' "$output" | sed -n '/^Command syntax/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
        run "$program" "$name" --help
        assert_status 0
        run "$program" "$name" --no-such-option
        assert_status 1
        refute_output 'Command not found'
    done
    run "$program" --version
    assert_output 'merganser-img version'
}

@test "--object is taken where qemu-img takes it" {
    qemu-img create -q -f qcow2 images/o.qcow2 1M
    same 'img map --object secret,id=s0,data=abc o.qcow2' 'img check --object throttle-group,id=x o.qcow2' \
        'img snapshot --object secret,id=s0,data=abc -l o.qcow2' 'img compare --object secret,id=s0,data=abc o.qcow2 o.qcow2' \
        'img create --object secret,id=s0,data=abc -f qcow2 x 1M' 'img map --object foo,id=s0 o.qcow2' \
        'img map --object secret o.qcow2' 'img map --object id=x o.qcow2' 'img map --object secret,foo o.qcow2' 'img map --object'
}

@test "what an image is called, and what it rests on, is shown to a terminal and does not talk to it" {
    local program=$BUILD_DIR/merganser-img escape=$'\e[2J' words
    cd images
    qemu-img create -q -f qcow2 evil.qcow2 4M
    qemu-img snapshot -c "one$escape" evil.qcow2
    qemu-img create -q -f raw "raw$escape" 1M
    qemu-img rebase -u -b "raw$escape" -F raw evil.qcow2
    qemu-io -f raw -c 'write -q 0 64k' "raw$escape"
    for words in 'info evil.qcow2' 'snapshot -l evil.qcow2' "map raw$escape"; do
        # shellcheck disable=SC2086
        run "$program" $words
        assert_status 0
        assert_output '\x1b[2J'
        refute_output "$escape"
    done
    cd ..
}

@test "persistent bitmaps are listed with their flags, and none after a program that does not keep them wrote" {
    qemu-img create -q -f qcow2 images/bitmaps.qcow2 4M
    qemu-img bitmap --add --enable images/bitmaps.qcow2 first
    qemu-img bitmap --add --disable -g 128k images/bitmaps.qcow2 second
    both bitmaps.qcow2
    # Killed while it was open: in use.
    (cd images && qemu-io -f qcow2 -c 'write -q 0 64k' -c abort bitmaps.qcow2) >/dev/null 2>&1 || true
    qemu-img info images/bitmaps.qcow2 | grep in-use
    both bitmaps.qcow2
    mg -drive file=images/bitmaps.qcow2,if=none,id=d,format=qcow2 -c 'qemu-io d "write -P 3 1M 64k"'
    run "$BUILD_DIR/merganser-img" info images/bitmaps.qcow2
    refute_output ' bitmaps:'
    qemu-img info images/bitmaps.qcow2 2>&1 | grep 'all bitmaps are now considered inconsistent'
}

@test "of a directory of bitmaps in which one makes no sense none is listed, and the rest of the image is told" {
    local wrong program=$BUILD_DIR/merganser-img
    cd images
    for wrong in '4294967295 20' '100 18' '64 17' '255 17'; do
        rm -f bad.qcow2
        qemu-img create -q -f qcow2 bad.qcow2 4M
        qemu-img bitmap --add bad.qcow2 first
        qemu-img bitmap --add bad.qcow2 second
        # Of the second entry: the length of its extra data, of its name, or its granularity.
        python3 -c '
import struct, sys
value, field = map(int, sys.argv[1:])
with open("bad.qcow2", "r+b") as image:
    head = image.read(4096)
    at = head.index(bytes.fromhex("23852875"), 104)
    directory, = struct.unpack(">Q", head[at + 24:at + 32])
    image.seek(directory)
    entries = image.read(64)
    step = (24 + struct.unpack(">H", entries[18:20])[0] + 7) & ~7
    image.seek(directory + step + field)
    image.write({17: ">B", 18: ">H", 20: ">I"}[field] and struct.pack({17: ">B", 18: ">H", 20: ">I"}[field], value))' $wrong
        run timeout -k 2 20 "$program" info bad.qcow2
        assert_status 0
        assert_output 'virtual size: 4 MiB'
        refute_output ' bitmaps:'
    done
    cd ..
}

@test "a json: name that is wrong is refused in qemu-img's words" {
    qemu-img create -q -f qcow2 a.img 1M
    local name theirs
    for name in '' '{' '[]' '1' '{"driver":"qcow2","file.filename":"a.img"}x' '{"driver":"qcow2","file.filename":"a.img",}' \
        '{"driver":"qcow2","driver":"raw","file.filename":"a.img"}' '{"file":{"driver":"file","filename":"a.img","filename":"a.img"}}' \
        '{"driver":"qcow2","file":"x","file.filename":"a.img"}' '{"driver":"qcow2","file.":"a.img"}' '{"driver":"qcow2","file":["a"]}' \
        '{"driver":"qcow2","file.filename":7}' '{"driver":"qcow2","file":7}' "{'driver':'qcow2','file.filename':'a.img'}"; do
        run qemu-img info "json:$name"
        theirs=${output//qemu-img/merganser-img}
        run "$BUILD_DIR/merganser-img" info "json:$name"
        [ "$output" = "$theirs" ] || fail "$name: $output, not $theirs"
    done
}
