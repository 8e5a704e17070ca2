#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# blkdebug makes the same requests fail, with the same errors, as the real one does.

load ../lib.bash
load oracle.bash

setup() {
    common_setup
    images
}

opts=driver=qcow2,file.driver=blkdebug,file.image.filename=ov

# rules LINE...: the file with rules.
rules() {
    printf '%s\n' "$@" >rules
}

work() {
    alike "$opts,$1" 'read -P 2 0 64k' 'read -P 1 512k 64k' 'write -P 3 64k 64k' 'write -P 4 600k 4k' 'write -P 5 3M 64k' \
        'read -P 2 0 64k' 'read -P 4 600k 4k' 'read -P 5 3M 64k' 'write -P 6 3M 64k' 'read -P 6 3M 64k'
    grep -q failed ours
}

@test "a rule in a file fails the request after its event" {
    rules '[inject-error]' 'event = "write_aio"' 'errno = "28"' 'once = "on"'
    work file.config=rules
    grep -q 'No space left' ours
}

@test "without once a rule fails all requests from its event on" {
    rules '[inject-error]' 'event = "read_aio"' 'errno = "5"' 'iotype = "read"'
    work file.config=rules
}

@test "events of qcow2 and of the block layer arm rules" {
    local event
    for event in read_aio read_backing_aio cow_read cow_write write_aio cluster_alloc pwritev; do
        rules '[inject-error]' "event = \"$event\"" 'errno = "28"' 'once = "on"' 'immediately = "on"'
        work file.config=rules
    done
}

@test "a rule may be for one kind of request" {
    local kind
    for kind in read write; do
        work "file.inject-error.0.event=read_aio,file.inject-error.0.iotype=$kind,file.inject-error.0.errno=28"
    done
    alike "$opts,file.inject-error.0.event=read_aio,file.inject-error.0.iotype=flush" 'read -P 2 0 64k' 'read -P 1 512k 64k'
    alike "$opts,file.inject-error.0.event=read_aio,file.inject-error.0.iotype=discard" 'read -P 2 0 64k' 'write -P 1 0 64k'
}

@test "a rule may be for one sector" {
    local host
    host=$(qemu-img map --output=json ov | jq '.[0].offset / 512')
    work "file.inject-error.0.event=read_aio,file.inject-error.0.sector=$((host + 5))"
    grep -c failed ours
    alike "$opts,file.inject-error.0.event=read_aio,file.inject-error.0.sector=$((host + 128))" 'read -P 2 0 64k' 'read -P 2 64k 64k'
}

@test "states count events" {
    rules '[set-state]' 'event = "write_aio"' 'state = "1"' 'new_state = "2"' \
        '[set-state]' 'event = "write_aio"' 'state = "2"' 'new_state = "3"' \
        '[inject-error]' 'event = "write_aio"' 'state = "3"' 'errno = "28"' 'once = "on"'
    work file.config=rules
    [ "$(grep -c 'write failed' ours)" = 1 ]
}

@test "rules come as options, several, and beside a file" {
    rules '[inject-error]' 'event = "cow_read"' 'errno = "28"' 'once = "on"'
    work file.config=rules,file.inject-error.0.event=read_aio,file.inject-error.0.once=on,file.inject-error.1.event=cluster_alloc,file.inject-error.1.errno=12
}

@test "an error number 0 lets requests through" {
    alike "$opts,file.inject-error.0.event=none,file.inject-error.0.errno=0" 'read -P 2 0 64k'
}

@test "blkdebug:RULES:IMAGE is a file name" {
    rules '[inject-error]' 'event = "read_aio"' 'errno = "28"' 'once = "on"'
    ours file=blkdebug:rules:ov,format=qcow2 'read -P 2 0 64k' 'read -P 2 0 64k'
    [ "$(cat ours)" = "$(printf 'read failed: No space left on device\nread 65536/65536 bytes at offset 0')" ]
    ours file=blkdebug::ov,format=qcow2 'read -P 2 0 64k'
    [ "$(cat ours)" = 'read 65536/65536 bytes at offset 0' ]
}

# refused OPTIONS: with the words of the real one.
refused() {
    timeout -k 5 20 qemu-io --image-opts "driver=qcow2,file.driver=blkdebug,file.image.filename=ov,$1" -c 'read 0 512' 2>&1 | head -1 >real
    ! mg --qemu-compat -drive "if=none,id=d,driver=qcow2,file.driver=blkdebug,file.image.filename=ov,$1" >ours 2>&1
    echo "merganser: -drive if=none,id=d,driver=qcow2,file.driver=blkdebug,file.image.filename=ov,$1: $(sed "s/^qemu-io: can't open: //" real)" >real
    head -1 ours | diff real -
}

@test "what makes no sense is refused in QEMU's words" {
    refused file.inject-error.0.event=nix
    refused file.inject-error.0.errno=5
    refused file.inject-error.0=x
    refused file.inject-error.0.event=none,file.inject-error.0.errno=x
    refused file.inject-error.0.event=none,file.inject-error.0.iotype=x
    refused file.inject-error.0.event=none,file.inject-error.0.once=x
    refused file.inject-error.0.event=none,file.inject-error.0.colour=red
    refused file.align=1000
    refused file.max-discard=1000,file.opt-discard=512
    refused file.config=missing
    refused file.colour=red
}

@test "rule files that make no sense are refused in QEMU's words" {
    local text
    for text in '[inject-error]\nevent = "nix"' '[inject-errox]' '[inject-error]\nevent="none"' '[inject-error]\nerrno = "5"' \
        '[inject-error]\nevent = none' 'event = "none"' '[set-state]\nevent = "none"\nerrno = "5"' '[inject-error]\njunk junk' \
        '[inject-error]\nevent = "none"\nsector = "1k"' '[inject-error]\nevent = "none"\nonce = "perhaps"' \
        '[inject-error]\nevent = "none"\nimmediately = "perhaps"'; do
        printf "$text\n" >rules
        refused file.config=rules
    done
}

@test "requests below keep the alignment and the lengths that were asked for" {
    local options=driver=blkdebug,image.driver=raw,image.file.filename=ov
    alike "$options,align=4096,inject-error.0.event=pwritev_rmw_head,inject-error.0.iotype=write" \
        'write -P 1 4096 4096' 'write -P 2 512 512' 'read -P 1 4096 512'
    alike "$options,align=4096,inject-error.0.event=pwritev_rmw_after_tail,inject-error.0.iotype=write" \
        'write -P 1 4096 512' 'read 0 512'
    alike "$options,max-transfer=65536,inject-error.0.event=none,inject-error.0.sector=128,inject-error.0.iotype=read,inject-error.0.once=on" \
        'read 0 128k' 'read 0 128k'
    ours "$options,align=4096" 'write -P 7 512 1024' 'write -P 8 4k 8k' 'read -P 7 512 1024' 'read -P 8 4k 8k' || :
    qemu-io -f raw -c 'read -P 7 512 1024' -c 'read -P 8 4k 8k' ov | grep -c 'bytes at' | grep -qx 2
}

@test "an error of the medium reaches the device by its policy" {
    rules '[inject-error]' 'event = "write_aio"' 'errno = "5"' 'once = "on"'
    mg -guest profile=none -drive "if=virtio,file=blkdebug:rules:ov,format=qcow2,werror=report" -c '-qemu-io virtio0 "write 0 64k"' -c 'info block' >out
    grep -q 'write failed: Input/output error' out
}

@test "a stream ends with the error that a layer below gives" {
    mg -drive "if=virtio,driver=qcow2,file.filename=ov,backing.driver=qcow2,backing.file.driver=blkdebug,backing.file.image.filename=base,backing.file.inject-error.0.event=read_aio,backing.file.inject-error.0.errno=28" \
        -c 'block_stream virtio0' -c '-wait virtio0 done 30s' -c 'info block' >out 2>&1 || :
    grep -q 'No space left on device' out
    grep -q 'Backing file:     base' out
    qemu-img check -q ov
    qemu-img compare ov ov.before
}
