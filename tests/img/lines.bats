#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Command lines of merganser-img that are odd or wrong are read as qemu-img reads them.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    oracle_setup
    qemu-img create -q -f raw images/r.img 1M
    qemu-img create -q -f qcow2 images/a.qcow2 1M
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 images/b.qcow2
}

@test "sizes are read as qemu-img reads them" {
    local size
    local line=true
    for size in +1 +1M ++1 .5M 1. 1.5M 0.0 0.0005k 1.0001k 0x10 1e3 -1 inf; do
        line+="; img map -f raw --output=json -s '$size' r.img"
    done
    same "$line" 'img resize -f qcow2 a.qcow2 +.5M' 'img measure -O qcow2 --size 1M -o cluster_size=+64k' 'img measure --size 1M -O qcow2 -o refcount_bits=99999999999999999999' \
        'img measure --size 1M -O qcow2 -o refcount_bits=-1' 'img create -f raw new 4P' \
        'img resize -f qcow2 a.qcow2 9223372036854775807' 'img resize -f raw r.img 7E'
}

@test "the first wrong word of a line is the one that is named" {
    same 'img convert -m 0 -S 100 -r x a.qcow2 new' 'img convert -r x -m 0 a.qcow2 new' 'img check -r x -Z' \
        'img measure --output=xml -Z' 'img resize --preallocation=x a.qcow2' 'img map -l x -s y' \
        'img create -o , -Z' 'img measure -O qcow2 -o size=1M,' 'img convert -O raw --skip-broken-bitmaps -o help a.qcow2 new' \
        'img convert -c -O raw -o backing_fmt=x a.qcow2 new' 'img convert -O qcow2 -B a.qcow2 nosuch r.img new' \
        'img convert -O x --bitmaps r.img new' 'img convert -p -T foo a.qcow2 new' 'img create -f raw -F raw new 1M'
}

@test "objects are judged as qemu-img judges them" {
    same 'img info --object secret,id=s a.qcow2' 'img info --object secret,id=s,data=x a.qcow2' \
        'img info --object secret,id=s,data=x,file=y a.qcow2' 'img info --object secret,id=s,data=x,foo=1 a.qcow2' \
        'img info --object secret,id=1s,data=x a.qcow2' 'img info --object secret,id=s,data=x,format=y a.qcow2' \
        'img info --object iothread,id=i a.qcow2' 'img info --object foo a.qcow2' 'img info --object "" a.qcow2' \
        'img info --object "{\"qom-type\":\"secret\",\"id\":\"s\",\"data\":\"x\"}" a.qcow2' 'img info --object "{" a.qcow2' \
        'img info --object "{}" a.qcow2' 'img info --object help' 'img compare --object foo,id=x a.qcow2 a.qcow2'
}

@test "--image-opts: a word without a key names a node, and flags are warned of" {
    same 'img info --image-opts a.qcow2' 'img info --image-opts a.qcow2,driver=qcow2' \
        'img info --image-opts driver=qcow2,read-only,file.filename=a.qcow2' \
        'img info --image-opts driver=qcow2,noread-only,file.filename=a.qcow2' \
        'img info --image-opts driver=qcow2,foo,file.filename=a.qcow2' 'img info --image-opts ,' \
        'img info --image-opts driver=qcow2,id=1x,file.filename=a.qcow2'
}

@test "a file without a name is called that" {
    same 'img info ""' 'img info -f qcow2 ""' 'img info -f file ""' 'img info --image-opts driver=qcow2,file.driver=file' \
        'img info --image-opts driver=raw,file.filename=' 'img create -f qcow2 -b a.qcow2 -F qcow2 ""' \
        'img info file:a.qcow2' 'img info json:' 'img info json:[]' 'img info json:5'
}

@test "wishes to the host's file system are taken" {
    same 'img create -f qcow2 -o nocow=on,extent_size_hint=0 new 1M' \
        'img create -f raw -o extent_size_hint=0 new 1M' 'img convert -O qcow2 -o extent_size_hint=0 a.qcow2 new' \
        'img create -f qcow2 -o extent_size_hint=x new 1M' 'img create -f qcow2 -o nocow=x new 1M'
}

@test "check opens what lies below, and says nothing when it is to be quiet" {
    rm -f images/gone
    qemu-img create -q -f qcow2 -u -b gone -F qcow2 images/c.qcow2 1M
    same 'img check c.qcow2' 'img check -r all c.qcow2' 'img check -q --output=json a.qcow2' 'img check --output=json b.qcow2'
}

@test "the line of progress ends where qemu-img ends it" {
    same 'img compare -p a.qcow2 nosuch' 'img compare -p nosuch a.qcow2' 'img convert -p nosuch new'
}

@test "snapshot without an action opens the image for writing" {
    same 'img snapshot r.img' 'img snapshot -U a.qcow2' 'img snapshot -U -l a.qcow2'
}
