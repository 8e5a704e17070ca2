#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Copy on read: what is read from below is in the image afterwards, and nothing else.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a 4M
    qemu-io -c 'write -q -P 1 0 1M' a
    qemu-img create -q -f qcow2 -b a -F qcow2 b
    qemu-io -c 'write -q -P 2 1M 1M' b
    qemu-img create -q -f qcow2 -b b -F qcow2 c
    qemu-io -c 'write -q -P 3 128k 64k' c
    cp c c.before
}

# maps OPTIONS COMMAND...: the real one with these options; its image's map is the one that ours has to leave.
alike_map() {
    local command commands=()
    for command in "${@:3}"; do
        commands+=(-c "$command")
    done
    cp c.before c
    timeout -k 5 20 qemu-io --image-opts "${commands[@]}" "$1" >/dev/null
    qemu-img map --output=json c | jq -c '.[] | [.start, .length, .depth, .zero]' >real
    commands=()
    for command in "${@:3}"; do
        commands+=(-c "qemu-io d \"$command\"")
    done
    cp c.before c
    mg -drive "if=none,id=d,$2" "${commands[@]}" >out
    ! grep -q failed out
    qemu-img map --output=json c | jq -c '.[] | [.start, .length, .depth, .zero]' >ours
    diff real ours
    qemu-img check -q c
    qemu-img compare c c.before
}

@test "whole clusters are kept, as by the real one" {
    alike_map driver=copy-on-read,file.driver=qcow2,file.file.filename=c driver=copy-on-read,file.driver=qcow2,file.file.filename=c \
        'read -P 1 4k 4k' 'read -P 1 100k 20k' 'read -P 3 128k 64k' 'read -P 2 1500k 100k'
}

@test "zeroes are kept as zeroes" {
    alike_map driver=copy-on-read,file.driver=qcow2,file.file.filename=c driver=copy-on-read,file.driver=qcow2,file.file.filename=c \
        'read -P 0 3M 128k'
}

@test "with bottom only what lies at it or above is kept" {
    local opts=driver=copy-on-read,bottom=bb,file.driver=qcow2,file.file.filename=c,file.backing.driver=qcow2,file.backing.node-name=bb,file.backing.file.filename=b
    mg -drive "if=none,id=d,$opts" -c 'qemu-io d "read -P 1 0 64k"' -c 'qemu-io d "read -P 2 1M 64k"' -c 'qemu-io d "read -P 0 3M 64k"' >out
    ! grep -q failed out
    qemu-img map --output=json c | jq -e '[.[] | select(.depth == 0 and (.data or .zero)) | .start] == [131072, 1048576]'
}

@test "a read that cannot be kept is an error, as with the real one" {
    local opts=driver=copy-on-read,file.driver=qcow2,file.file.driver=blkdebug,file.file.image.filename=c,file.file.inject-error.0.event=none,file.file.inject-error.0.iotype=write
    run timeout -k 5 20 qemu-io --image-opts -c 'read -P 2 1M 64k' "$opts"
    assert_output "read failed: Input/output error"
    run mg -drive "if=none,id=d,$opts" -c 'qemu-io d "read -P 2 1M 64k"'
    assert_output "read failed: Input/output error"
}

@test "copy-on-read=on of a drive keeps what its guest reads" {
    mg -drive if=none,id=d,file=c,format=qcow2,copy-on-read=on -c 'qemu-io d "read -P 2 1M 64k"' >out
    qemu-img map --output=json c | jq -e 'any(.[]; .depth == 0 and .start == 1048576 and .length == 65536)'
    qemu-img compare c c.before
}

@test "an image without anything below has nothing to keep" {
    cp a raw.img
    mg -drive if=none,id=d,file=raw.img,format=raw,copy-on-read=on -c 'qemu-io d "read 0 64k"' >out
    grep -q 'read 65536/65536' out
    cmp a raw.img
}

@test "a bottom that is none is refused in QEMU's words" {
    local opts=if=none,id=d,driver=copy-on-read,file.driver=qcow2,file.file.filename=c
    ! mg --qemu-compat -drive "$opts,bottom=x" >out 2>&1
    grep -q "Bottom node 'x' not found" out
}

@test "a read-only drive cannot keep anything, and says so" {
    mg --qemu-compat -drive if=none,id=d,file=c,format=qcow2,copy-on-read=on,readonly=on -c 'qemu-io d "read -P 2 1M 64k"' >out 2>&1
    grep -q 'warning: disabling copy-on-read on read-only drive' out
    cmp c c.before
}
