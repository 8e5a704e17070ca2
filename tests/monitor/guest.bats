#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# `guest` and `info guest`: what the guest of a disk does, and what it has seen.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f raw a.img 1M
    qemu-img create -q -f raw b.img 1M
    DISKS=(-drive file=a.img,if=virtio,format=raw -drive file=b.img,if=virtio,format=raw -guest profile=none)
}

@test "a guest is given new settings, one word or several, and described alone" {
    run mg "${DISKS[@]}" -c 'guest virtio1 profile=stamp rw=write,bs=4k rate_iops=1' -c 'guest virtio1' -c 'info guest -v virtio1' \
        -c 'info guest virtio0'
    assert_status 0
    [ "$(grep -c '^virtio1: profile=stamp ' <<<"$output")" = 2 ] || fail "$output"
    [ "$(grep -c '^virtio0: profile=none ' <<<"$output")" = 1 ] || fail "$output"
    grep -q '^    .* state=.* rw=write .* bs=4096 .*' <<<"$output" || fail "$output"
}

@test "all guests are told of without a name" {
    run mg "${DISKS[@]}" -c 'info guest'
    [ "$(grep -c '^virtio[01]: profile=none ' <<<"$output")" = 2 ] || fail "$output"
}

@test "QMP tells of all guests" {
    mg_start "${DISKS[@]}"
    [ "$(qmp '{"execute":"query-guest"}' | jq -c '[.return[] | .profile]')" = '["none","none"]' ]
}

@test "a guest stops and starts at a word" {
    run mg "${DISKS[@]}" -c 'guest virtio0 stop' -c 'info guest -v virtio0' -c 'guest virtio0 start' -c 'info guest -v virtio0'
    assert_status 0
    [ "$(grep -o ' state=[a-z]*' <<<"$output" | xargs)" = 'state=stopped state=idle' ] || fail "$output"
}

@test "what is no setting, no disk, no end of a string is said" {
    refuses() {
        run mg "${DISKS[@]}" -c "$1"
        assert_status 3
        assert_output "Error: $2"
    }
    refuses 'guest virtio0 foo' "'foo' is no setting: key=value, start or stop expected"
    refuses 'guest virtio0 bs=4k,=1' "'=1' is no setting: key=value, start or stop expected"
    refuses 'guest virtio0 "bs=4k' "unterminated string"
    refuses 'guest virtio0 foo=1' "Invalid parameter 'foo'"
    refuses 'guest nosuch stop' "Device 'nosuch' not found"
    refuses 'info guest nosuch' "Device 'nosuch' not found"
}

@test "a comma in a value is doubled" {
    printf 'fio version 2 iolog\nb add\nb open\nb write 0 4096\nb close\n' >'a,b.log'
    run mg -clock virtual "${DISKS[@]}" -c 'guest virtio0 profile=replay,iolog=a,,b.log,bs=4k' -c 'sleep 100ms' -c 'info guest virtio0'
    assert_status 0
    assert_output " writes=1 "
}

@test "whether it may write is on or off" {
    run mg -clock virtual -guest profile=preserve -drive file=a.img,if=virtio,format=raw,readonly=on -drive file=b.img,if=virtio,format=raw \
        -c 'sleep 50ms' -c 'info guest -v'
    assert_output " read_only=on "
    assert_output " read_only=off "
}

@test "a disk without a guest has nothing to tell" {
    run mg -guest profile=none -drive file=a.img,if=none,id=d,format=raw -c 'info guest d' -c 'guest d'
    assert_status 0
    [ "$output" = $'(qemu) info guest d\n(qemu) guest d' ] || fail "$output"
}

@test "wrong data is told with its place, fails an expectation, and gives 6" {
    local rc=0
    mg_start -S -drive file=a.img,if=virtio,format=raw,file.locking=off -guest profile=stamp,rw=write,bs=64k,rate_iops=0
    hmp cont
    sleep 0.2
    hmp 'guest virtio0 stop'
    dd if=/dev/zero of=a.img bs=64k count=16 conv=notrunc status=none
    run hmp 'expect guest clean' 'info guest -v'
    assert_output "The guest has seen wrong data: info guest -v tells where"
    assert_output "profile=stamp"
    grep -Eq '^    sector [0-9]+|^    .*(sector|offset|0x).*' <<<"$output" || fail "$output"
    refute_output "mismatches=0 "
    hmp quit
    mg_wait || rc=$? # not under `run`: a subshell has no children to wait for
    [ "$rc" = 6 ]
}

@test "an error that a guest should not have seen fails an expectation, and gives 6" {
    qemu-img create -q -f qcow2 c.img 1M
    printf '[inject-error]\nevent = "write_aio"\nerrno = "5"\niotype = "write"\n' >rules
    run mg -drive driver=qcow2,file.driver=blkdebug,file.image.filename=c.img,file.config=rules,if=virtio,werror=report \
        -guest profile=stamp,rw=write,bs=64k,rate_iops=0 -c 'sleep 200ms' -c 'expect guest clean'
    assert_status 6
    assert_output "Error: The guest has seen an error that it should not have seen: info guest tells"
}

@test "a disk that an error has stopped says so in info block" {
    qemu-img create -q -f qcow2 c.img 1M
    printf '[inject-error]\nevent = "write_aio"\nerrno = "5"\niotype = "write"\n' >rules
    run mg -drive driver=qcow2,file.driver=blkdebug,file.image.filename=c.img,file.config=rules,if=virtio,werror=stop,detect-zeroes=unmap,discard=unmap \
        -guest profile=stamp,rw=write,bs=64k,rate_iops=0 -c 'sleep 200ms' -c 'info status' -c 'info block'
    assert_output "VM status: paused (io-error)"
    assert_output "    I/O status:       failed"
    assert_output "    Detect zeroes:    unmap"
}

@test "guests of both IDE channels, first and second drives, work and see what they wrote" {
    local i disks=()
    for i in 0 1 2 3; do
        qemu-img create -q -f raw ide$i.img 8M
        disks+=(-drive "file=ide$i.img,if=ide,index=$i,format=raw")
    done
    run mg --clock virtual "${disks[@]}" -guest profile=stamp,rw=randrw,flush_every=8 -c 'sleep 2s' -c 'expect guest clean' -c 'info guest'
    assert_status 0
    [ "$(grep -cE '^ide[01]-hd[01]: profile=stamp reads=[1-9].* verified=[1-9][0-9]* mismatches=0 errors=0 ' <<<"$output")" = 4 ] ||
        fail "$output"
}

@test "a drive goes with its device, with its medium or without" {
    qemu-img create -q -f qcow2 a.img 8M
    mg_start -nodefaults -guest profile=none
    for gone in 'info version' 'drive_del d'; do
        hmp 'drive_add 0 if=none,id=d,file=a.img' 'device_add virtio-blk,drive=d,id=x' >answers
        for _ in {1..100}; do # a guest that boots would meet errors
            hmp 'info guest -json' | grep -q '"capacity"' && break
            sleep 0.02
        done
        hmp "$gone" 'device_del x' >>answers
        for _ in {1..100}; do
            run hmp 'info block'
            [ -n "$output" ] || break
            sleep 0.02
        done
        [ -z "$output" ] || fail "$output"
        assert_clean a.img # nobody has it open
    done
    hmp quit
    mg_wait
}

@test "a disk of -blockdev and -device has a guest like any other: it is commanded, and told of what is written behind its back" {
    qemu-img create -q -f qcow2 a.img 1M
    run mg --clock virtual -blockdev driver=qcow2,node-name=n,file.driver=file,file.filename=a.img \
        -device virtio-blk,drive=n,id=v \
        -guest profile=preserve,rate_iops=0,bs=64k,iodepth=1 -c 'sleep 100ms' -c 'guest v stop' -c 'qemu-io -d /machine/peripheral/v/virtio-backend "write -P 7 0 1M"' \
        -c 'guest v start' -c 'sleep 100ms' -c 'expect guest clean' -c 'info guest v' -c '!guest w stop' \
        -c 'guest v stop' -c 'expect read v 0 1M pattern 7' -c 'expect chain v = a' -c 'info chain v' -c '!info chain w'
    assert_status 0
    assert_output "v: profile=preserve"
    assert_output "The devices are: v."
    assert_output "v: 1 MiB"
    assert_output "Error: Cannot find device='w' nor node-name='w'"
}

@test "a guest that trims in a row trims its whole place" {
    head -c 1M /dev/zero | tr '\0' x >a.img
    run mg --clock virtual -drive file=a.img,if=virtio,format=raw,discard=unmap -guest profile=stamp,rw=trim,bs=64k,offset=0,size=1M \
        -c 'sleep 2s' -c 'expect guest clean'
    assert_status 0
    cmp -n 1048576 a.img /dev/zero
}
