#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Memory does not grow with the chain.

load ../lib.bash

# deep LAYERS: a chain of 1 GiB, each layer with 16 pieces of its own, l0.img at the bottom.
deep() {
    local i k backing='' commands
    for ((i = 0; i < $1; i++)); do
        qemu-img create -q -f qcow2 ${backing:+-b $backing -F qcow2} "l$i.img" 1G
        commands=()
        for ((k = 0; k < 16; k++)); do
            commands+=(-c "write -q -P $((i + 1)) $((k * 64 + i % 64))M 64k")
        done
        qemu-io -f qcow2 "${commands[@]}" "l$i.img" >/dev/null
        backing=l$i.img
    done
}

# peak PID: what it held at most, in KiB. The process is timeout's child.
peak() {
    awk '/VmHWM/ { print $2 }' "/proc/$(pgrep -P "$1")/status"
}

@test "a chain of 64 layers of 1 GiB is open within 32 MiB, also when all of it has been read" {
    ! grep -q '^OUR_CFLAGS.*-fsanitize' "$BUILD_DIR/Makefile" || skip "the sanitizer's own memory counts too"
    deep 64
    mg_start -drive file=l63.img,if=virtio,format=qcow2 -guest profile=none
    [ "$(peak "$MG_PID")" -lt 32768 ]
    run hmp 'guest virtio0 profile=preserve rw=read bs=1M rate_iops=0 size=1G' 'sleep 2s' 'info guest'
    assert_output 'mismatches=0'
    [ "$(peak "$MG_PID")" -lt 32768 ] || fail "$(peak "$MG_PID") KiB"
}
