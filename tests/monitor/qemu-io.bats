#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The monitor's qemu-io: the same words do the same, and say the same, as the real one.

load ../lib.bash

# same LINE...: our qemu-io and the real one, each on an image of its own, say the same (times aside).
same() {
    local line args=() options=()
    for line; do
        args+=(-c "qemu-io virtio0 \"$line\"")
        options+=(-c "$line")
    done
    qemu-img create -q -f qcow2 real.img 8M
    qemu-img create -q -f qcow2 ours.img 8M
    stdbuf -oL qemu-io -f qcow2 "${options[@]}" real.img >real.out 2>&1 || true
    mg -guest profile=none --on-error=continue -drive file=ours.img,if=virtio,format=qcow2 "${args[@]}" >ours.out || true
    sed -E 's/[0-9.]+ sec \(.*\)/T/; s/(0:00:00.00),.*/\1/' real.out >real.txt
    sed -E '/^\(qemu\) /d; s/[0-9.]+ sec \(.*\)/T/; s/(0:00:00.00),.*/\1/' ours.out >ours.txt
    diff -u real.txt ours.txt >&2 || fail "the answers differ"
    same_content real.img ours.img
}

@test "reads and writes, patterns and verdicts" {
    same "write 0 64k" "read 0 64k" "read -P 0xcd 0 64k" "write -P 0x55 64k 64k" "read -P 0x55 64k 64k" "read -P 1 0 4k" \
        "read -P 0 -s 1k -l 1k 1M 4k" "read -P 0 -s 1k -l 8k 0 4k" "read -v 60k 40" "write -P 7 512 512" "read -C 0 512" \
        "read -q 0 1M" "write 1 511" "read 1 1" "write -z 128k 64k" "write -z -u 192k 64k" "read -P 0 128k 128k" \
        "writev -P 9 0 4k 4k" "readv -P 9 0 4k 4k" "write -f 0 4k" "read 0 0" "write 0 0" flush "discard 0 64k" \
        "discard -q 0 64k" "read 1k 1K" "read 1.5k 0x200" "aio_write -P 3 0 64k" aio_flush length ""
}

@test "what is allocated" {
    same "write -q 0 1M" map "alloc 0 1M" "alloc 0" "alloc 64k 128k" "alloc 0 16M" "alloc 2M 1M" "alloc 16M" \
        "write -q 4M 1M" "alloc 4M 1M" map
}

@test "what is wrong is said in the same words" {
    same "read 0" read "read 0 x" "read x 0" "read 8M 512" "write 8M 512" "read 0 9M" "read 0 3G" "write -z 0 3G" \
        "read -P 256 0 512" "read -P x 0 512" "write -z -P 1 0 512" "write -u 0 512" "write -n 0 512" "read 0 512 512" foo \
        "flush x" "map x" alloc "discard 0" "discard 0 x" "discard 16M 512" "read 0 99999999999999999999" "read 8E 1" \
        "read 1.5 1" "read -s 1k 0 4k" "write -s nofile 0 1k" "help foo" "help length"
}

@test "a file's content is written again and again" {
    printf 'abc' >three
    same "write -s three 0 1000" "read -v 0 20"
}

@test "nobody writes behind the back of the image above" {
    make_chain file-A.img file-B.img
    run mg -guest profile=none -drive "$(chain_drive A B)" -c 'qemu-io node-A "write 0 64k"'
    assert_status 3
    assert_output "Permission conflict on node 'node-A': permissions 'write' are both required by an unnamed block device (uses node 'node-A' as 'root' child) and unshared by node 'node-B' (uses node 'node-A' as 'backing' child)."
    assert_clean file-A.img
    read_pattern file-A.img 0 1M 1
}

@test "a pattern that does not fit fails the command" {
    make_chain file-A.img
    run mg -guest profile=none -drive "$(chain_drive A)" -c 'qemu-io virtio0 "read -P 1 0 1M"'
    assert_status 0
    run mg -guest profile=none -drive "$(chain_drive A)" -c 'qemu-io virtio0 "read -P 2 0 1M"'
    assert_status 3
}

@test "a node is read by its name" {
    make_chain file-A.img file-B.img
    run mg -guest profile=none -drive "$(chain_drive A B)" -c 'qemu-io node-A "read -P 1 0 1M"' -c 'qemu-io node-A map'
    assert_status 0
    run mg -guest profile=none -drive "$(chain_drive A B)" -c 'qemu-io nosuch "read 0 512"'
    assert_status 3
    assert_output "Error: Cannot find device='' nor node-name='nosuch'"
    assert_output "The devices are: virtio0."
}

@test "what qemu-io writes under a guest is not taken for wrong data" {
    qemu-img create -q -f qcow2 disk.img 16M
    for i in {0..15}; do printf 'qemu-io virtio0 "write -P %d %dM 1M"\nqemu-io virtio0 "discard %dM 64k"\nsleep 20ms\n' "$i" "$i" "$i"; done >script
    echo 'expect guest clean' >>script
    run mg -drive file=disk.img,if=virtio,format=qcow2,discard=unmap \
        -guest profile=stamp,rate_iops=5000,iodepth=16,size=16M -f script
    assert_status 0
}
