#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Corruption that is met while a guest runs: the image is marked, reported and written no further, and the program goes on.

load ../lib.bash

# poke FILE OFFSET HEX
poke() {
    printf '%b' "$(sed 's/../\\x&/g' <<<"$3")" | dd of="$1" bs=1 seek="$(($2))" conv=notrunc status=none
}

setup() {
    common_setup
    qemu-img create -q -f qcow2 x.img 16M
    qemu-io -f qcow2 -c 'write -q -P 7 0 4M' x.img >/dev/null
    l1=$((16#$(xxd -s 40 -l 8 -p x.img)))
    l2=$((16#$(xxd -s $l1 -l 8 -p x.img) & 0x00fffffffffffe00))
}

# The first cluster cannot be written: the rest of the image is closed too. $1 is what the message says.
closes() {
    cp x.img before.img
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none --on-error=continue -c '!qemu-io virtio0 "write -P 5 0 64k"' \
        -c '!qemu-io virtio0 "write -P 5 1M 64k"' -c '!qemu-io virtio0 "write -P 5 8M 64k"' -c 'info status' -c 'info block virtio0'
    assert_output "qcow2: Marking image as corrupt: $1"
    assert_output "; further corruption events will be suppressed"
    [ "$(grep -c corrupt <<<"$output")" = 1 ] || fail "$output"
    assert_output "VM status: running"
    assert_output "x.img (qcow2, read-only)"
    # The mark is the only change.
    [ "$(xxd -s 72 -l 8 -p x.img)" = 0000000000000002 ]
    [ "$(cmp -l x.img before.img | wc -l)" = 1 ]
    run qemu-io -f qcow2 -c quit x.img
    assert_output "Image is corrupt; cannot be opened read/write"
}

@test "a write that would hit the L1 table" {
    poke x.img $l2 "$(printf %016x $((l1 | 1 << 63)))"
    closes "Preventing invalid write on metadata (overlaps with active L1 table)"
}

@test "a write that would hit an L2 table" {
    poke x.img $l2 "$(printf %016x $((l2 | 1 << 63)))"
    closes "Preventing invalid write on metadata (overlaps with active L2 table)"
}

@test "a write that would hit a reference count block" {
    poke x.img $l2 8000000000020000
    closes "Preventing invalid write on metadata (overlaps with refcount block)"
}

@test "a data cluster at an odd place" {
    poke x.img $l2 8000000000052200
    closes "Cluster allocation offset 0x52200 unaligned"
}

@test "a data cluster beyond the end of the file" {
    poke x.img $l2 80007fffffff0000
    closes "Data cluster offset 0x7fffffff0000 is beyond the end of the file"
}

@test "an L2 table at an odd place" {
    poke x.img $l1 "$(printf %016x $((l2 + 512 | 1 << 63)))"
    closes "L2 table offset"
}

@test "an L2 table beyond the end of the file" {
    poke x.img $l1 80007fffffff0000
    closes "L2 table offset 0x7fffffff0000 is beyond the end of the file"
}

@test "an L2 table in the place of the L1 table" {
    poke x.img $l1 "$(printf %016x $((l1 | 1 << 63)))"
    closes "active L2 table at offset"
}

@test "a reference count block in the place of the L2 table" {
    poke x.img $((16#$(xxd -s 48 -l 8 -p x.img))) "$(printf %016x $l2)"
    closes "active L2 table at offset"
}

@test "what lies beside the damage can be read" {
    poke x.img $l2 80007fffffff0000
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none --on-error=continue -c '!qemu-io virtio0 "read 0 64k"' \
        -c 'qemu-io virtio0 "read -P 7 64k 4032k"'
    refute_output "verification failed"
    assert_output "read 4128768/4128768 bytes at offset 65536"
}

@test "an image that is only read is reported, and stays as it is" {
    poke x.img $l2 8000000000052200
    cp x.img before.img
    run mg -drive file=x.img,if=virtio,format=qcow2,readonly=on -guest profile=none -c '!qemu-io virtio0 "read 0 64k"' \
        -c '!qemu-io virtio0 "read 0 64k"' -c 'qemu-io virtio0 "read -P 7 64k 64k"'
    assert_output "qcow2: Image is corrupt: Cluster allocation offset 0x52200 unaligned"
    assert_output "; further non-fatal corruption events will be suppressed"
    [ "$(grep -c corrupt <<<"$output")" = 1 ] || fail "$output"
    cmp x.img before.img
}

@test "QMP hears of it" {
    poke x.img $l2 8000000000052200
    mg_start -S -drive file=x.img,if=virtio,format=qcow2,node-name=node-x -guest profile=none
    run qmp '{"execute": "human-monitor-command", "arguments": {"command-line": "qemu-io virtio0 \"write 0 64k\""}}' \
        @BLOCK_IMAGE_CORRUPTED '{"execute": "query-status"}' '{"execute": "query-block"}'
    assert_output '"node-name": "node-x"'
    assert_output '"fatal": true'
    assert_output '"device": "virtio0"'
    assert_output '"status": "prelaunch"'
    assert_output '"corrupt": true'
    assert_output '"ro": true'
}

@test "a stream into a corrupt image fails, and its backing file stays" {
    qemu-img create -q -f qcow2 base.img 16M
    qemu-io -f qcow2 -c 'write -q -P 3 8M 4M' base.img >/dev/null
    qemu-img rebase -u -b base.img -F qcow2 x.img
    poke x.img $l2 8000000000052200
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none -c '-qemu-io virtio0 "write 0 64k"' -c 'block_stream virtio0' \
        -c 'wait virtio0 done 20s'
    assert_status 4
    assert_output "Job 'virtio0' failed: Input/output error"
    [ "$(backing_of x.img)" = base.img ]
}
