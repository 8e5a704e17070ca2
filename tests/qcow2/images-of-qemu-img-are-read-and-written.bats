#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Images of every combination of qemu-img's creation options: opened, read, written here; then qemu-img finds them
# clean and qemu-io finds what was written. (What merges do to them: tests/formats.)

load ../lib.bash

# use OPTIONS: one image. There is data at 1 MiB, and zeroes in a part of it; we write over parts of that and elsewhere.
use() {
    rm -f x.img
    qemu-img create -q -f qcow2 -o "$1" x.img 24M
    qemu-io -f qcow2 -c 'write -q -P 1 1M 3M' -c 'write -q -z 2M 300k' x.img >/dev/null
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none \
        -c 'qemu-io virtio0 "read -P 1 1M 1M"' -c 'qemu-io virtio0 "read -P 0 2M 300k"' \
        -c 'qemu-io virtio0 "write -P 7 1500k 5000"' -c 'qemu-io virtio0 "write -P 8 2100k 100k"' \
        -c 'qemu-io virtio0 "write -P 9 20000k 1M"' -c 'qemu-io virtio0 "write -z 3M 513k"' \
        -c 'qemu-io virtio0 "flush"' -c 'qemu-io virtio0 "read -P 7 1500k 5000"'
    [ "$status" -eq 0 ] || fail "$1: $output"
    refute_output "verification failed"
    assert_clean x.img
    read_pattern x.img 1M 476k 1
    read_pattern x.img 1500k 5000 7
    read_pattern x.img 2100k 100k 8
    read_pattern x.img 2200k 140k 0
    read_pattern x.img 20000k 1M 9
    read_pattern x.img 3M 513k 0
    read_pattern x.img 3585k 511k 1
}

# kinds OPTIONS: with each of the options that go together with these.
kinds() {
    local more
    for more in compat=0.10 refcount_bits=1 refcount_bits=64 lazy_refcounts=on compression_type=zstd \
        preallocation=metadata preallocation=falloc,refcount_bits=8 preallocation=full,lazy_refcounts=on; do
        use "$1,$more"
    done
}

@test "clusters of 512 bytes" { kinds cluster_size=512; }
@test "clusters of 2 KiB" { kinds cluster_size=2k; }
@test "clusters of 64 KiB" { kinds cluster_size=64k; }
@test "clusters of 2 MiB" { kinds cluster_size=2M; }

@test "extended L2 entries" {
    for size in 16k 64k 2M; do
        use extended_l2=on,cluster_size=$size
        use extended_l2=on,cluster_size=$size,refcount_bits=2
        use extended_l2=on,cluster_size=$size,preallocation=metadata
    done
}

@test "a size that is no multiple of a cluster" {
    qemu-img create -q -f qcow2 x.img 1000001536
    run mg -drive file=x.img,if=virtio,format=qcow2 -guest profile=none \
        -c 'qemu-io virtio0 "write -P 5 1000001024 512"' -c 'qemu-io virtio0 "flush"' \
        -c '-qemu-io virtio0 "write -P 5 1000001536 512"'
    assert_clean x.img
    read_pattern x.img 1000001024 512 5
    [ "$(virtual_size x.img)" = 1000001536 ]
}

@test "an empty disk" {
    qemu-img create -q -f qcow2 x.img 0
    run mg -drive file=x.img,if=none,format=qcow2,id=d -c 'info block'
    assert_status 0
    assert_clean x.img
}
