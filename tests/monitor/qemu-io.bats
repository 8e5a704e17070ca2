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
    sed -E 's/([0-9.]+ sec|0:00:[0-9.]+) \(.*\)/T/; s/0:00:[0-9.]+,.*/T,/' real.out >real.txt
    sed -E '/^\(qemu\) /d; s/([0-9.]+ sec|0:00:[0-9.]+) \(.*\)/T/; s/0:00:[0-9.]+,.*/T,/' ours.out >ours.txt
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
    : >empty
    same "read -l 1k 0 4k" "read -P 1 -s x 0 4k" "read -P 1 -l x 0 4k" "read -P 1 -s 8k 0 4k" "read -P -1 0 512" "read -P" \
        "read -Z 0 512" "writev -z 0 512" "write -s empty 0 1k" "write -s empty -P 1 0 1k" "alloc x" "alloc 0 x" "alloc 0 1 2" \
        "discard 0 512 512" "discard 8M 512" "discard x 512" "discard 0 9M" "write 0 9M" "write 0 x" "readv 0 1G 1G" \
        "writev 0 1G 1G" "readv 0 512 x" "readv 0 3G" "aio_read 0 1G 3G" "aio_write 0 3G" "aio_write -z 0 3G" aio_flush "aio_write -z 0 512 512" \
        "read -a 0 512" "readv 16M 512" "writev 16M 512" "write 16M 512" "aio_read 16M 512" aio_flush "aio_write 16M 512" aio_flush "write -n -z 0 3G" "read -P 7" "read 0 512 -P" "help help help"
}

@test "options that change nothing, options that change what is said, short names" {
    same "aio_write -z -P 1 -q 0 512" aio_flush "r 0 512" "w -p 0 512" "w -n -z 0 64k" "read -p 0 512" "read -q -v 0 512" "write -z -f 0 64k" "write -z 0 0" \
        "discard 0 0" "discard -C 0 0" "d 0 64k" f l "write -f -q 0 512" "read -P 1 -s 0 -l 0 0 512" "readv -v 0 16 16" \
        "write -P 0x1f 1M 512" "read -P 037 1M 512"
}

@test "help tells what a command takes, and lists them all" {
    qemu-img create -q -f qcow2 disk.img 1M
    run mg -guest profile=none -drive file=disk.img,if=virtio,format=qcow2 -c 'qemu-io virtio0 "help read"' -c 'qemu-io virtio0 help' \
        -c 'qemu-io virtio0 "? w"'
    assert_status 0
    assert_output "read [-abCqv] [-P pattern [-s off] [-l len]] off len -- reads a number of bytes at a specified offset"
    assert_output " reads a range of bytes from the given offset"
    assert_output "discard [-Cq] off len -- discards a number of bytes at a specified offset"
    assert_output "Use 'help commandname' for extended help."
    assert_output " 'write -P 7 512 1k' - writes 1 kilobyte of sevens, from byte 512 on"
}

@test "an option for what is not here is refused" {
    qemu-img create -q -f qcow2 disk.img 1M
    run mg -guest profile=none -drive file=disk.img,if=virtio,format=qcow2 -c 'qemu-io virtio0 "write -c 0 64k"'
    assert_status 3
    assert_output "write: -c is not supported here"
    run mg -guest profile=none -drive file=disk.img,if=virtio,format=qcow2 -c 'qemu-io virtio0 "read -b 0 64k"'
    assert_status 3
    assert_output "read: -b is not supported here"
}

@test "a host that fails is told for each kind of request" {
    qemu-img create -q -f qcow2 disk.img 1M
    qemu-io -f qcow2 -c 'write -q 0 256k' disk.img
    local opts=driver=qcow2,if=virtio,discard=unmap,file.driver=blkdebug,file.image.filename=disk.img line
    printf '[inject-error]\nevent = "%s"\nerrno = "5"\n' none >rules
    fails() {
        run mg -guest profile=none -drive "$opts,file.config=rules" -c "qemu-io virtio0 \"$1\"" -c 'qemu-io virtio0 flush'
        assert_status 3
        assert_output "$2 failed: Input/output error"
    }
    sed -i 's/event = .*/event = "read_aio"\niotype = "read"/' rules
    fails 'read 0 64k' read
    sed -i '/iotype/d; s/event = .*/event = "write_aio"\niotype = "write"/' rules
    fails 'write 0 64k' write
    sed -i '/iotype/d; s/event = .*/event = "flush_to_os"/' rules
    fails 'write -f 512k 64k' write
    fails 'write -f -z 0 64k' write
    sed -i 's/event = .*/event = "l2_load"/' rules
    fails 'write -z 0 64k' write
    fails 'discard 0 64k' discard
}

@test "how long it took is told in minutes and hours where it took so long" {
    qemu-img create -q -f qcow2 disk.img 8M
    slow() {
        mg -clock virtual -guest profile=none -object "throttle-group,id=g,x-bps-total=$1" \
            -drive driver=throttle,throttle-group=g,if=virtio,file.driver=qcow2,file.file.filename=disk.img \
            -c 'qemu-io virtio0 "write -q 0 1M"' -c "qemu-io virtio0 \"$2\""
    }
    slow 10485 'write 1M 1M' >out
    grep -Eqx '1 MiB, 1 ops; 01:[34][0-9]\.[0-9]{2} \(.*' out || fail "$(cat out)"
    slow 128 'write 1M 1M' >out
    grep -Eqx '1 MiB, 1 ops; 2:1[0-9]:[0-9]{2}\.[0-9]{2} \(.*' out || fail "$(cat out)"
}

@test "an image whose tables cannot be read has no map" {
    qemu-img create -q -f qcow2 disk.img 1M
    qemu-io -f qcow2 -c 'write -q 0 256k' disk.img
    printf '[inject-error]\nevent = "l2_load"\nerrno = "5"\n' >rules
    local line
    for line in map:'Failed to get allocation status' 'alloc 0 64k:is_allocated failed'; do
        run mg -guest profile=none -drive driver=qcow2,if=virtio,file.driver=blkdebug,file.image.filename=disk.img,file.config=rules \
            -c "qemu-io virtio0 \"${line%:*}\""
        assert_status 3
        assert_output "${line#*:}: Input/output error"
    done
}

@test "a disk that has no tables is all there" {
    run mg -guest profile=none -drive if=none,id=n,driver=null-co,size=1M -c 'qemu-io n map' -c 'qemu-io n "alloc 64k 128k"'
    assert_status 0
    assert_output "1 MiB (0x100000) bytes     allocated at offset 0 bytes (0x0)"
    assert_output "131072/131072 bytes allocated at offset 64 KiB"
}

@test "a disk is named by its device, and an empty or a read-only one takes nothing" {
    qemu-img create -q -f qcow2 disk.img 1M
    run mg -guest profile=none -blockdev qcow2,node-name=n0,file.driver=file,file.filename=disk.img \
        -device virtio-blk-pci,drive=n0,id=vd0 -c 'qemu-io -d /machine/peripheral/vd0/virtio-backend "read 0 512"'
    assert_status 0
    assert_output "read 512/512 bytes at offset 0"
    run mg -guest profile=none -drive file=disk.img,if=virtio,format=qcow2 -c 'qemu-io -d nosuch "read 0 512"'
    assert_status 3
    run mg -guest profile=none -drive if=none,id=empty -c 'qemu-io empty "read 0 512"'
    assert_status 3
    assert_output "Error: Device 'empty' has no medium"
    run mg -guest profile=none -drive file=disk.img,if=none,id=ro,format=qcow2,readonly=on -c 'qemu-io ro "write 0 512"'
    assert_status 3
    assert_output "Error: Block node is read-only"
}

@test "the file below a format is not written past it" {
    qemu-img create -q -f qcow2 disk.img 1M
    run mg -guest profile=none -drive file=disk.img,if=virtio,format=qcow2,node-name=top,file.node-name=below -c 'qemu-io below "write 0 512"'
    assert_status 3
    assert_output "and unshared by node 'top' (uses node 'below' as 'file' child)."
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

@test "zeroes that are written where a backing file was left out are there when it is back" {
    qemu-img create -q -f qcow2 base.img 1M
    qemu-io -f qcow2 -c 'write -q -P 170 0 1M' base.img
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    run mg -blockdev qcow2,node-name=n,file.driver=file,file.filename=top.img,backing= -c 'qemu-io n "read -P 0 0 64k"' \
        -c 'qemu-io n "write -z 1k 1k"' -c 'qemu-io n "write -z 64k 64k"'
    assert_status 0
    refute_output failed
    qemu-io -f qcow2 -c 'read -P 0 1k 1k' -c 'read -P 0 64k 64k' -c 'read -P 170 128k 64k' top.img >out
    ! grep -q failed out || fail "$(cat out)"
}
