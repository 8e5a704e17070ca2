#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Errors of the host that a guest's requests run into: werror= and rerror= decide.

load ../lib.bash

teardown() {
    common_teardown
    ! mountpoint -q small || umount small
}

# small N: a file system of N MiB in ./small.
small() {
    mkdir -p small
    mount -t tmpfs -o "size=$1m" merganser-test small 2>/dev/null || skip "mounting a small file system needs root"
    qemu-img create -q -f qcow2 small/x.img 64M
}

writer=profile=stamp,rw=write,bs=64k,iodepth=4,rate_iops=0,size=32M
reader=profile=preserve,rw=read,bs=64k,iodepth=4,rate_iops=0,size=8M,seed=1

# An image of 8 MiB the second half of which cannot be read: it is cut off. whole.img is not cut.
make_cut_image() {
    qemu-img create -q -f qcow2 x.img 8M
    qemu-io -f qcow2 -c 'write -q -P 7 0 8M' x.img >/dev/null
    cp x.img whole.img
    truncate -s $((5 << 20)) x.img
}


@test "werror=report: the guest is told of a full disk, and the image is clean" {
    small 4
    run mg -drive file=small/x.img,if=virtio,format=qcow2,werror=report -guest $writer -c 'sleep 500ms' -c 'info status' -c 'info guest'
    assert_status 6
    assert_output "VM status: running"
    refute_output " errors=0 "
    assert_clean small/x.img
}

@test "werror=ignore: the guest is not told of a full disk, and the image is clean" {
    small 4
    run mg -drive file=small/x.img,if=virtio,format=qcow2,werror=ignore -guest $writer -c 'sleep 500ms' -c 'info status' \
        -c 'info guest'
    assert_output "VM status: running"
    assert_output " errors=0 "
    assert_clean small/x.img
}

@test "werror=enospc, the default: a full disk stops the machine, and cont after making room goes on" {
    small 4
    mg_start -S -drive file=small/x.img,if=virtio,format=qcow2 -guest $writer
    run qmp '{"execute": "cont"}' @BLOCK_IO_ERROR @STOP '{"execute": "query-status"}' '{"execute": "query-block"}'
    assert_output '"action": "stop"'
    assert_output '"nospace": true'
    assert_output '"status": "io-error"'
    assert_output '"io-status": "nospace"'
    run hmp 'info status'
    assert_output "VM status: paused (io-error)"
    mount -o remount,size=80m small
    hmp cont
    sleep 0.3
    run hmp 'info status' 'info guest' 'expect guest clean'
    assert_output "VM status: running"
    assert_output " errors=0 "
    refute_output "Error"
    hmp quit
    mg_wait
    assert_clean small/x.img
}

@test "werror=stop: the program ends although requests wait for a cont that never comes" {
    local bus
    small 4
    for bus in virtio ide; do
        run mg --clock virtual -drive file=small/x.img,if=$bus,format=qcow2,werror=stop -guest $writer -c 'sleep 300ms' -c 'info status' -c 'sleep 100ms'
        assert_status 4
        assert_output "VM status: paused (io-error)"
        assert_output "merganser: the machine is stopped by an I/O error, and its guests' requests were never finished"
        assert_clean small/x.img
    done
}

@test "rerror=report, the default: the guest is told what cannot be read" {
    make_cut_image
    run mg --clock virtual -drive file=x.img,if=virtio,format=qcow2,readonly=on -guest $reader -c 'sleep 300ms' -c 'info status' -c 'info guest'
    assert_status 6
    assert_output "VM status: running"
    refute_output " errors=0 "
}

@test "rerror=ignore: the guest reads zeroes where nothing can be read" {
    make_cut_image
    run mg -drive file=x.img,if=virtio,format=qcow2,readonly=on,rerror=ignore -guest $reader -c 'sleep 300ms' -c 'info status' \
        -c 'info guest'
    assert_output "VM status: running"
    assert_output " errors=0 "
}

@test "rerror=stop: the machine stops, and cont tries again" {
    make_cut_image
    mg_start -S -drive file=x.img,if=virtio,format=qcow2,readonly=on,rerror=stop -guest $reader
    run qmp '{"execute": "cont"}' @BLOCK_IO_ERROR @STOP '{"execute": "query-status"}'
    assert_output '"operation": "read"'
    assert_output '"status": "io-error"'
    run qmp '{"execute": "cont"}' @BLOCK_IO_ERROR @STOP
    assert_output '"action": "stop"'
    dd if=whole.img of=x.img bs=1M conv=notrunc status=none
    hmp cont
    sleep 0.2
    run hmp 'info status' 'info guest' 'expect guest clean'
    assert_output "VM status: running"
    assert_output " errors=0 "
    refute_output "Error"
    hmp quit
    mg_wait
}
