#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What NBD clients write arrives, whatever else happens to the disk meanwhile.

load ../lib.bash

URI='nbd+unix:///spare?socket=nbd.sock'

# start_spare IMAGE OPTIONS: a disk that no device has, exported for writing.
start_spare() {
    mg_start -drive "if=none,id=spare,format=qcow2,file=$1${2:+,$2}"
    run hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add -w spare'
    [ -z "$output" ] || fail "$output"
}

finish() {
    hmp quit
    mg_wait
}

wait_for_jobs() {
    local i
    for ((i = 0; i < 200; i++)); do
        [[ $(hmp 'info block-jobs') != *"No active jobs"* ]] || return 0
        sleep 0.1
    done
    fail "the job does not end"
}

@test "nbdcopy and qemu-img convert write whole images" {
    make_chain file-A.img
    offline_merge file-A.img merged.raw
    qemu-img create -q -f qcow2 spare.img 64M
    start_spare spare.img
    timeout -k 5 30 nbdcopy --connections=4 merged.raw "$URI"
    timeout -k 5 30 qemu-img compare -f raw -F raw merged.raw "$URI"
    timeout -k 5 30 nbdcopy -- [ nbdkit --exit-with-parent null 64M ] "$URI"
    timeout -k 5 30 qemu-img convert -n -f raw -O raw -m 8 -W merged.raw "$URI"
    finish
    assert_clean spare.img
    same_content merged.raw spare.img
}

@test "bytes go where they belong, whatever their borders" {
    qemu-img create -q -f qcow2 -o cluster_size=4k spare.img 8M
    qemu-img create -q -f raw model.raw 8M
    start_spare spare.img
    writes=(-c 'write -P 1 1 1' -c 'write -P 2 511 2' -c 'write -P 3 4095 8195' -c 'write -P 4 1000001 3000003'
        -c 'write -z 1500 70000' -c 'write -f -P 5 8388607 1' -c 'write -P 6 20000 1' -c 'write -zu 2000000 500000')
    timeout -k 5 30 qemu-io -f raw "${writes[@]}" "$URI" >over-nbd
    ! grep -i 'fail\|error' over-nbd
    qemu-io -f raw "${writes[@]}" model.raw >/dev/null
    finish
    assert_clean spare.img
    same_content model.raw spare.img
}

@test "zeroes and discards are told from holes" {
    make_chain file-A.img
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 spare.img
    start_spare spare.img discard=unmap
    timeout -k 5 30 qemu-io -f raw -c 'write -zu 0 512k' -c 'write -z 512k 512k' "$URI" >/dev/null
    run timeout -k 5 20 nbdinfo --map "$URI"
    [[ $(tr -s ' ' <<<"${lines[0]}") = *" 0 33554432 3 hole,zero" ]] || fail "$output"
    timeout -k 5 30 qemu-io -f raw -c 'read -P 0 0 1M' -c 'discard 32M 64k' "$URI" >out
    ! grep -i 'fail\|error' out
    finish
    assert_clean spare.img
}

@test "a flush makes durable what all connections wrote" {
    qemu-img create -q -f qcow2 spare.img 64M
    start_spare spare.img
    timeout -k 5 30 qemu-io -f raw -c 'write -P 7 1M 1M' -c flush "$URI" >/dev/null
    # The process dies; what it had not written is gone.
    kill -9 "$(pgrep -P "$MG_PID")"
    mg_wait || true
    assert_clean spare.img
    read_pattern spare.img 1M 1M 7
}

@test "fio verifies what it wrote while layers are merged and snapshots taken" {
    make_chain file-A.img file-B.img file-C.img
    qemu-img create -q -f qcow2 -b file-C.img -F qcow2 spare.img
    start_spare spare.img
    # Every block once, in random order, slowly; then all are read. fio cannot verify what it overwrote itself.
    timeout -k 5 60 fio --name=verify --ioengine=nbd --uri="$URI" --rw=randwrite --bs=12k --size=60m --rate=,16m \
        --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output=fio.out &
    local fio=$! beside=0
    sleep 0.2
    for i in 1 2 3 4; do
        ! kill -0 $fio 2>/dev/null || beside=$((beside + 1)) # however long this one takes here
        run hmp "snapshot_blkdev spare over$i.img" 'block_stream spare'
        [ -z "$output" ] || fail "$output"
        wait_for_jobs
        sleep 0.2
    done
    [ $beside -gt 0 ] || fail "fio was too early: nothing ran beside it"
    wait $fio || fail "$(cat fio.out)"
    timeout -k 5 30 nbdcopy "$URI" copy.raw
    finish
    assert_chain over4.img over4.img
    assert_clean over4.img
    same_content copy.raw over4.img
}

@test "a read-only export refuses to be written" {
    qemu-img create -q -f qcow2 spare.img 64M
    mg_start -drive if=none,id=spare,format=qcow2,file=spare.img
    hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add spare'
    run timeout -k 5 20 qemu-io -f raw -c 'write 0 512' "$URI"
    [ "$status" -ne 0 ]
    run timeout -k 5 20 nbdinfo --is readonly "$URI"
    assert_status 0
}

@test "an image opened read-only is exported read-only though -w was said" {
    qemu-img create -q -f qcow2 spare.img 64M
    start_spare spare.img read-only=on
    run timeout -k 5 20 nbdinfo --is readonly "$URI"
    assert_status 0
}

@test "a layer that a job writes to is exported read-only though -w was said" {
    make_chain file-A.img file-B.img file-C.img
    mg_start -S -drive "$(chain_drive A B C)"
    run qmp '{"execute": "block-stream", "arguments": {"device": "node-B", "job-id": "j", "speed": 65536}}'
    refute_output error
    hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add -w node-B'
    run timeout -k 5 20 nbdinfo --is readonly 'nbd+unix:///node-B?socket=nbd.sock'
    assert_status 0
    run timeout -k 5 20 qemu-io -f raw -c 'write 0 512' 'nbd+unix:///node-B?socket=nbd.sock'
    [ "$status" -ne 0 ]
}
