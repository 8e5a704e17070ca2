#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Trace events: what is switched on is told, where it was asked for, and nothing else.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f raw a.raw 1M
}

@test "an event that is on is told on standard error" {
    mg -drive file=a.raw,format=raw,if=virtio,node-name=disk -guest profile=none -c 'trace-event blk_co_preadv on' \
        -c 'qemu-io virtio0 "read 4k 512"' >out 2>told
    grep -qx 'blk_co_preadv disk offset 4096 bytes 512' told
}

@test "events are off until somebody asks, and again when they are switched off" {
    mg -drive file=a.raw,format=raw,if=virtio -guest profile=none -c 'qemu-io virtio0 "read 0 512"' \
        -c 'log trace:blk_*' -c 'trace-event blk_co_preadv off' -c 'qemu-io virtio0 "read 0 512"' >out 2>told
    ! grep -q blk_co_preadv told
}

@test "logfile sends them to a file" {
    mg -drive file=a.raw,format=raw,if=virtio -guest profile=none -c 'logfile log' -c 'trace-event handle_hmp_command on' \
        -c 'info status' >out 2>told
    grep -qx 'handle_hmp_command info status' log
    [ ! -s told ]
}

@test "each kind of request is told under its own name" {
    mg -drive file=a.raw,format=raw,if=virtio,node-name=disk,discard=unmap -guest profile=none -c 'trace-event b*_co_* on' \
        -c 'qemu-io virtio0 "write 0 4k"' -c 'qemu-io virtio0 "write -z 4k 8k"' -c 'qemu-io virtio0 "discard 64k 64k"' \
        -c 'qemu-io virtio0 flush' -c 'qemu-io virtio0 "read 0 4k"' >out 2>told
    grep -x 'b.*_co_.* disk.*' told | grep -v -e bdrv_co_flush -e 'bytes 512$' >requests # but for what the guest reads at boot
    printf '%s\n' 'blk_co_pwritev disk offset 0 bytes 4096' 'bdrv_co_pwrite_zeroes disk offset 4096 bytes 8192' \
        'bdrv_co_pdiscard disk offset 65536 bytes 65536' 'blk_co_preadv disk offset 0 bytes 4096' >wanted
    diff wanted requests
    grep -qx 'bdrv_co_flush disk' told
}

@test "a guest's failed request is told, and what became of it" {
    mg -drive file.driver=blkdebug,file.image.filename=a.raw,file.inject-error.0.event=none,file.inject-error.0.iotype=write,driver=raw,if=virtio \
        -guest rw=write -c 'trace-event send_qmp_error_event on' -c 'cont' -c 'sleep 0.3' >out 2>told || :
    grep -qx 'send_qmp_error_event virtio0 write: Input/output error, action report' told
    ! grep send_qmp_error_event told | grep -q read
}

@test "a job is told from its beginning to its end" {
    qemu-img create -q -f qcow2 -b a.raw -F raw over.img
    mg -drive file=over.img,format=qcow2,if=virtio -guest profile=none -c 'trace-event job_state_transition on' \
        -c 'block_stream virtio0' -c 'wait virtio0' >out 2>told
    head -2 told | tr '\n' ' ' | grep -q 'virtio0 (undefined-->created) .*virtio0 (created-->running)'
    tail -1 told | grep -q 'concluded-->null'
}

@test "without a pattern all events are listed, each with what it tells" {
    mg -S -drive if=none -c 'info trace-events' >out
    grep -Eqx 'blk_co_preadv : state 0  \(.+\)' out
    grep -Eqx 'job_state_transition : state 0  \(.+\)' out
}
