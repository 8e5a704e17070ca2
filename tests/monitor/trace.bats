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
