#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# raw with offset and size: a part of a file is the disk.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    head -c 3M /dev/zero | tr '\0' x >ov
    cp ov ov.before
}

part=driver=raw,offset=1M,size=1M,file.filename=ov

@test "a part is read and written at its place, as by the real one" {
    alike "$part" 'write -P 1 0 64k' 'write -P 2 960k 64k' 'read -P 1 0 64k' 'read -P 2 960k 64k' 'read 1M 512' 'write 1M 512'
    cp ov theirs
    ours "$part" 'write -P 1 0 64k' 'write -P 2 960k 64k' || :
    cmp ov theirs
    qemu-io -f raw -c 'read -P 1 1M 64k' -c 'read -P 2 1984k 64k' -c 'read -P 120 0 1M' -c 'read -P 120 2M 1M' ov | grep -c 'bytes at' | grep -qx 4
}

@test "zeroes and discards stay in the part" {
    ours "$part" 'write -z 0 64k' 'discard 64k 64k' 'read -P 0 0 64k' || :
    qemu-io -f raw -c 'read -P 120 0 1M' -c 'read -P 0 1M 64k' -c 'read -P 120 1152k 1920k' ov | grep -c '^read' | grep -qx 3
}

@test "an offset alone is all from there on" {
    mg -drive if=none,id=d,driver=raw,offset=2M,file.filename=ov -c 'info block -v' >out
    grep -q 'virtual size: 1 MiB' out
}

@test "a part that is not there is refused in QEMU's words" {
    local options
    for options in offset=4M offset=1M,size=3M size=4M size=1000 offset=x; do
        timeout -k 5 20 qemu-io --image-opts "driver=raw,$options,file.filename=ov" -c 'read 0 512' 2>&1 | head -1 >real
        ! mg --qemu-compat -drive "if=none,id=d,driver=raw,$options,file.filename=ov" >ours 2>&1
        [ "$(sed "s/^qemu-io: can't open: //" real)" = "$(head -1 ours | sed 's/^.*file.filename=ov: //')" ]
    done
}

@test "a part of a fixed size does not change its size, another grows at the file's end" {
    mg --qemu-compat -drive "if=none,id=d,$part" -c '-block_resize d 2M' >out
    grep -q 'Error: Cannot resize fixed-size raw disks' out
    mg --qemu-compat -drive if=none,id=d,driver=raw,offset=1M,file.filename=ov -c 'block_resize d 5M'
    [ "$(stat -c %s ov)" = $((6 << 20)) ]
}

@test "a qcow2 image in the middle of a file is a disk" {
    qemu-img create -q -f qcow2 image 4M
    qemu-io -c 'write -q -P 9 0 1M' image
    truncate -s 2M container
    cat image >>container
    truncate -s 8M container
    mg -drive if=none,id=d,driver=qcow2,file.driver=raw,file.offset=2M,file.size=6M,file.file.driver=file,file.file.filename=container \
        -c 'qemu-io d "read -P 9 0 1M"' -c 'qemu-io d "write -P 8 64k 64k"' -c 'qemu-io d "write -P 7 3M 64k"' >out
    ! grep -q failed out
    tail -c +$(((2 << 20) + 1)) container >image
    qemu-img check -q image
    qemu-io -c 'read -P 8 64k 64k' -c 'read -P 7 3M 64k' -c 'read -P 9 128k 64k' image | grep -c 'bytes at' | grep -qx 3
}

@test "a qcow2 image above a raw node reads what it wrote beyond the former end of the file" {
    qemu-img create -q -f qcow2 grows.img 64M
    mg -nodefaults -blockdev driver=file,node-name=f,filename=grows.img -blockdev driver=raw,node-name=r,file=f \
        -blockdev driver=qcow2,node-name=q,file=r -device virtio-blk,drive=q,id=v -guest profile=none \
        -c 'qemu-io -d /machine/peripheral/v/virtio-backend "write -P 5 0 2M"' \
        -c 'qemu-io -d /machine/peripheral/v/virtio-backend "write -P 6 20M 4M"' \
        -c 'qemu-io -d /machine/peripheral/v/virtio-backend "read -P 6 20M 4M"' -c quit
    qemu-io -f qcow2 -c 'read -q -P 5 0 2M' -c 'read -q -P 6 20M 4M' grows.img
}
