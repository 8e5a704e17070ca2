#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A raw image whose format was guessed: its guest cannot make an image of it that the next start, ours or QEMU's, would take for
# another format.

load ../lib.bash

setup() {
    common_setup
    truncate -s 4M r.raw
}

# writes ARGS...: the command is refused, and the file stays raw zeroes.
refused() {
    run mg -drive file=r.raw,if=virtio -guest profile=none -c "!qemu-io virtio0 \"$1\""
    assert_status 0
    assert_output "write failed: Operation not permitted"
    cmp -n 4194304 r.raw /dev/zero
}

@test "a guessed raw image comes with QEMU's warning" {
    run mg -drive file=r.raw,if=virtio -c quit
    assert_output "WARNING: Image format was not specified for 'r.raw' and probing guessed raw."
    assert_output "write operations on block 0 will be restricted."
    run mg -drive file=r.raw,if=virtio,format=raw -c quit
    refute_output WARNING
    run mg -drive file=r.raw,if=virtio,readonly=on -c quit
    refute_output WARNING
}

@test "the head of a qcow2 image is not written to a guessed raw image" {
    qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw evil.img 4M
    head -c 512 evil.img >sector
    head -c 4096 evil.img >page
    refused "write -s sector 0 512"
    refused "write -s page 0 4k"
}

@test "nor that of any format that QEMU would guess" {
    local format mark
    for format in qcow qed vmdk vdi vhdx parallels luks; do
        rm -f evil.img
        case $format in
        luks) qemu-img create -q -f luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 evil.img 1M ;;
        *) qemu-img create -q -f $format evil.img 4M ;;
        esac || continue
        [ "$(qemu-img info --output=json evil.img | jq -r .format)" = $format ] || fail "$format is not guessed"
        head -c 512 evil.img >sector
        refused "write -s sector 0 512"
    done
    for mark in '# Disk DescriptorFile\nversion=1\n' '\n\n#\nversion=2\n' 'conectix'; do
        # shellcheck disable=SC2059
        { printf "$mark"; head -c 512 /dev/zero; } | head -c 512 >sector
        refused "write -s sector 0 512"
    done
}

@test "nor a part of the first sector, with which a head could be made piece by piece" {
    refused "write -P 0x51 0 256"
    refused "write -P 0x51 256 256"
    refused "write -P 0x51 256 4k"
}

@test "other content goes anywhere, the first sector too" {
    run mg -drive file=r.raw,if=virtio -guest profile=none -c 'qemu-io virtio0 "write -P 1 0 512"' -c 'qemu-io virtio0 "write -P 2 4k 4k"' \
        -c 'qemu-io virtio0 "write -P 3 1M 64k"' -c 'qemu-io virtio0 "read -P 1 0 512"'
    assert_status 0
    refute_output "failed"
    read_pattern r.raw 4k 4k 2
}

@test "with format=raw the guest may write what it likes" {
    qemu-img create -q -f qcow2 evil.img 4M
    head -c 512 evil.img >sector
    run mg -drive file=r.raw,if=virtio,format=raw -guest profile=none -c 'qemu-io virtio0 "write -s sector 0 512"'
    assert_status 0
    cmp -n 512 sector r.raw
}
