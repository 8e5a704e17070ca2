#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Limits: of disks, of throttle nodes, of groups; judged by the virtual clock, and in words by the real QEMU.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a.qcow2 4M
    qemu-img create -q -f qcow2 b.qcow2 4M
}

# guest_reads LIMITS: requests that a guest got answered in 10 seconds.
guest_reads() {
    mg --clock virtual -guest profile=preserve,rw=randread,bs=4k,iodepth=4,rate_iops=0 -drive "file=a.qcow2,if=virtio,format=qcow2$1" \
        -c 'sleep 1s' -c 'info guest' -c 'sleep 10s' -c 'info guest' >out
    sed -n 's/^virtio0:.* reads=\([0-9]*\) .*/\1/p' out | paste -s | awk '{ print $2 - $1 }'
}

@test "a disk's guest gets what iops_rd= allows, and no more" {
    local n
    n=$(guest_reads ,iops_rd=50)
    [ "$n" -ge 499 ]
    [ "$n" -le 501 ]
}

@test "a disk's guest gets what throttling.bps-total= allows" {
    local n
    n=$(guest_reads ,throttling.bps-total=409600)
    [ "$n" -ge 999 ]
    [ "$n" -le 1001 ]
}

@test "disks of one group share its limits" {
    mg --clock virtual -guest profile=preserve,rw=randread,bs=4k,iodepth=4,rate_iops=0 \
        -drive file=a.qcow2,if=virtio,format=qcow2,iops=100,group=g -drive file=b.qcow2,if=virtio,format=qcow2,iops=100,group=g \
        -c 'sleep 1s' -c 'info guest' -c 'sleep 10s' -c 'info guest' >out
    sed -n 's/^virtio[01]:.* reads=\([0-9]*\) .*/\1/p' out | paste -s | awk '{ a = $3 - $1; b = $4 - $2
        exit !(a + b >= 998 && a + b <= 1002 && a - b >= -3 && a - b <= 3) }'
}

@test "the filter throttle obeys the object that it names" {
    mg --clock virtual -object throttle-group,id=g,x-bps-total=65536 \
        -blockdev driver=throttle,throttle-group=g,node-name=t,file.driver=null-co -c 'qemu-io t "write 0 64k"' \
        -c 'qemu-io t "write 0 64k"' -c 'qemu-io t "read 0 64k"' >out
    [ "$(grep -c '00.90 sec\|01.00 sec' out)" = 2 ]
}

@test "an ending program waits for no limit" {
    MG_TIMEOUT=10 mg -guest profile=preserve,rw=randread,bs=4k,iodepth=4,rate_iops=0 -drive file=a.qcow2,if=virtio,format=qcow2,bps=1 \
        -c 'sleep 200ms' -c quit
}

@test "a stream on a throttled disk is not the guest's, and not held up" {
    qemu-io -c 'write -q -P 1 0 2M' a.qcow2
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 c.qcow2
    mg --clock virtual -drive if=none,id=d,file=c.qcow2,bps=65536 -c 'block_stream d' -c 'wait d done 60s' >out
    [ "$(qemu-img info c.qcow2 | grep -c 'backing file')" = 0 ]
    qemu-img compare a.qcow2 c.qcow2
}

@test "info block tells limits as QEMU does" {
    local limits=throttling.iops-total=100,throttling.group=foo,iops_max=200,throttling.iops-total-max-length=5,iops_size=4096,bps_rd=7
    printf 'info block\nquit\n' | timeout -k 5 20 qemu-system-x86_64 -M none -display none -nodefaults -monitor stdio \
        -drive if=none,id=d,file=a.qcow2,$limits 2>/dev/null | tr -d '\r' | grep '^    I/O' >real
    mg --qemu-compat -drive if=none,id=d,file=a.qcow2,$limits -c 'info block' | grep '^    I/O' >ours
    diff real ours
}

@test "a group that is not there is refused" {
    ! mg --qemu-compat -blockdev driver=throttle,throttle-group=g,node-name=t,file.driver=null-co >out 2>&1
    grep -q "Throttle group 'g' does not exist" out
    ! mg --qemu-compat -blockdev driver=throttle,node-name=t,file.driver=null-co >out 2>&1
    grep -q "Parameter 'throttle-group' is missing" out
}

@test "block_set_io_throttle changes what a running guest gets, and takes the limit away again" {
    mg --clock virtual -guest profile=preserve,rw=randread,bs=4k,iodepth=4,rate_iops=0 -drive file=a.qcow2,if=virtio,format=qcow2 \
        -c 'block_set_io_throttle virtio0 0 0 0 50 0 0' -c 'sleep 1s' -c 'info guest' -c 'sleep 10s' -c 'info guest' \
        -c 'block_set_io_throttle virtio0 0 0 0 0 0 0' -c 'sleep 50ms' -c 'info guest' -c 'expect guest clean' >out
    sed -n 's/^virtio0:.* reads=\([0-9]*\) .*/\1/p' out | paste -s | awk '{ exit !($2 - $1 >= 499 && $2 - $1 <= 501 && $3 - $2 > 600) }'
}

@test "a chain with filters between its layers is told whole, and what is recorded of it are images" {
    qemu-img create -q -f qcow2 a.img 4M
    qemu-img create -q -f qcow2 -b a.img -F qcow2 b.img
    qemu-img create -q -f qcow2 -b b.img -F qcow2 c.img
    mg_start -nodefaults -object throttle-group,id=g \
        -blockdev driver=qcow2,node-name=a,read-only=on,file.driver=file,file.filename=a.img \
        -blockdev driver=throttle,node-name=ta,read-only=on,throttle-group=g,file=a \
        -blockdev driver=qcow2,node-name=b,file.driver=file,file.filename=b.img,backing=ta \
        -blockdev driver=copy-on-read,node-name=cb,file=b \
        -blockdev driver=qcow2,node-name=c,file.driver=file,file.filename=c.img,backing=cb \
        -device virtio-blk,drive=c -guest profile=none
    run qmp '{"execute": "query-block"}'
    run python3 -c '
import json, sys
told = json.loads(sys.argv[1])["return"][0]["inserted"]
image, formats = told["image"], []
while image:
    formats.append(image["format"] + (" %d" % image["cluster-size"]))
    image = image.get("backing-image")
print(told["backing_file_depth"], *formats)' "$output"
    [ "$output" = '4 qcow2 65536 copy-on-read 65536 qcow2 65536 throttle 65536 qcow2 65536' ] || fail "$output"
    qmp '{"execute": "change-backing-file", "arguments": {"device": "c", "image-node-name": "b", "backing-file": "./a.img"}}' \
        '{"execute": "block-stream", "arguments": {"device": "c", "job-id": "j", "base-node": "cb"}}' @BLOCK_JOB_COMPLETED
    mg_stop
    run qemu-img info b.img
    assert_output 'backing file: ./a.img'
    assert_output 'backing file format: qcow2'
    run qemu-img info c.img
    assert_output 'backing file format: qcow2'
}
