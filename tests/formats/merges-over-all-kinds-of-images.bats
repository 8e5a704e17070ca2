#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Images that qemu-img writes, of every kind, are merged here under a busy guest, and judged by qemu-img again.
# One line a kind.

load ../lib.bash

# merge OPTIONS: a chain of three layers with these creation options; flattened, and with the base kept.
merge() {
    local target
    CHAIN_SIZE=${2:-64M} CHAIN_OPTIONS=$1 make_chain file-A.img file-B.img file-C.img
    offline_merge file-C.img merged.raw
    mkdir fresh && cp --sparse=always ./*.img fresh/
    for target in '' file-A.img; do
        cp --sparse=always fresh/*.img .
        run mg -drive "$(chain_drive A B C)" -guest rate_iops=1500,iodepth=8,bs=4k-64k \
            -c "block_stream virtio0 0 $target" -c wait -c 'expect guest clean'
        assert_status 0
        [ "$(backing_of file-C.img)" = "$target" ]
        assert_clean file-A.img file-B.img file-C.img
        same_content merged.raw file-C.img
    done
}

@test "clusters of 512, version 3" { merge cluster_size=512; }
@test "clusters of 512, version 2" { merge cluster_size=512,compat=0.10; }
@test "clusters of 1k, version 3" { merge cluster_size=1k; }
@test "clusters of 1k, version 2" { merge cluster_size=1k,compat=0.10; }
@test "clusters of 4k, version 3" { merge cluster_size=4k; }
@test "clusters of 4k, version 2" { merge cluster_size=4k,compat=0.10; }
@test "clusters of 64k, version 3" { merge cluster_size=64k; }
@test "clusters of 64k, version 2" { merge cluster_size=64k,compat=0.10; }
@test "clusters of 256k, version 3" { merge cluster_size=256k; }
@test "clusters of 256k, version 2" { merge cluster_size=256k,compat=0.10; }
@test "clusters of 2M, version 3" { merge cluster_size=2M; }
@test "clusters of 2M, version 2" { merge cluster_size=2M,compat=0.10; }
@test "reference counts of 1 bits" { merge refcount_bits=1; }
@test "reference counts of 2 bits" { merge refcount_bits=2; }
@test "reference counts of 4 bits" { merge refcount_bits=4; }
@test "reference counts of 8 bits" { merge refcount_bits=8; }
@test "reference counts of 32 bits" { merge refcount_bits=32; }
@test "reference counts of 64 bits" { merge refcount_bits=64; }
@test "extended L2 entries" { merge extended_l2=on; }
@test "extended L2 entries, clusters of 2M" { merge extended_l2=on,cluster_size=2M; }
@test "lazy reference counts" { merge lazy_refcounts=on; }
@test "zstd as the compression type" { merge compression_type=zstd; }

# The layers differ among themselves.

# mixed TOP-OPTIONS MIDDLE-OPTIONS: the base has 64k clusters.
mixed() {
    qemu-img create -q -f qcow2 file-A.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 20M' -c 'write -q -P 2 40M 3k' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -o "$2" -b file-A.img -F qcow2 file-B.img
    qemu-io -f qcow2 -c 'write -q -P 3 3M 7M' -c 'write -q -P 4 40961k 1k' -c 'write -q -z 12M 5M' file-B.img >/dev/null
    qemu-img create -q -f qcow2 -o "$1" -b file-B.img -F qcow2 file-C.img
    qemu-io -f qcow2 -c 'write -q -P 5 5M 300k' -c 'write -q -P 6 42000k 512' file-C.img >/dev/null
    offline_merge file-C.img merged.raw
    run mg -drive "$(chain_drive A B C)" -guest rate_iops=1500,iodepth=8 -c "block_stream virtio0 0 file-A.img" -c wait \
        -c 'expect guest clean'
    assert_status 0
    assert_clean file-C.img
    same_content merged.raw file-C.img
    run mg -drive "file=file-C.img,if=virtio,format=qcow2" -guest rate_iops=1500 -c "block_stream virtio0" -c wait \
        -c 'expect guest clean'
    assert_status 0
    assert_clean file-C.img
    same_content merged.raw file-C.img
}

@test "small clusters over large ones" { mixed cluster_size=512 cluster_size=2M; }
@test "large clusters over small ones" { mixed cluster_size=2M cluster_size=512; }
@test "extended L2 over small clusters" { mixed extended_l2=on cluster_size=1k; }
@test "version 2 over version 3" { mixed compat=0.10 cluster_size=4k; }

@test "a shorter backing file reads zeroes beyond its end after the merge, too" {
    qemu-img create -q -f qcow2 file-A.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 64M' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img 20M
    qemu-io -f qcow2 -c 'write -q -P 2 1M 1M' file-B.img >/dev/null
    qemu-img create -q -f qcow2 -b file-B.img -F qcow2 file-C.img 64M
    offline_merge file-C.img merged.raw
    run mg -drive "$(chain_drive A B C)" -c "block_stream virtio0 0 file-A.img" -c wait -c 'expect guest clean'
    assert_status 0
    assert_clean file-C.img
    same_content merged.raw file-C.img
}

@test "a longer backing file is cut off at the overlay's end" {
    qemu-img create -q -f qcow2 file-A.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 64M' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img 20M
    offline_merge file-B.img merged.raw
    run mg -drive "$(chain_drive A B)" -c "block_stream virtio0" -c wait -c 'expect guest clean'
    assert_status 0
    assert_clean file-B.img
    same_content merged.raw file-B.img
}

# compressed TYPE: a compressed base and a compressed middle.
compressed() {
    qemu-img create -q -f raw data.raw 32M
    for i in {0..31}; do echo "-c"; echo "write -q -P $((i + 1)) ${i}M 700k"; done | xargs -d '\n' qemu-io -f raw data.raw >/dev/null
    dd if=/dev/urandom of=data.raw bs=64k count=16 seek=100 conv=notrunc status=none
    qemu-img convert -c -f raw -O qcow2 -o "compression_type=$1" data.raw file-A.img
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img
    offline_merge file-B.img merged.raw
    run mg -drive "$(chain_drive A B)" -guest rate_iops=2000,iodepth=8,size=32M -c "block_stream virtio0" -c wait \
        -c 'expect guest clean'
    assert_status 0
    assert_clean file-B.img
    same_content merged.raw file-B.img
}

@test "zlib clusters are read and merged" { compressed zlib; }
@test "zstd clusters are read and merged" { compressed zstd; }

@test "compressed clusters that lie in the file in any order are merged" {
    local args=() i
    qemu-img create -q -f qcow2 file-A.img 2M
    for i in 31 0 1 3 2 4 5 6 7 30 16 15 14 13 12 8 9 17 18 19 20 21 29; do
        args+=(-c "write -q -c -P $((i + 1)) $((i * 64))k 64k")
    done
    qemu-io -f qcow2 "${args[@]}" -c 'write -q -P 77 384k 1k' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img
    offline_merge file-B.img merged.raw
    run mg -drive "$(chain_drive A B)" -guest profile=none -c "block_stream virtio0" -c wait
    assert_status 0
    assert_clean file-B.img
    same_content merged.raw file-B.img
}

@test "compressed clusters of the active image are overwritten" {
    qemu-img create -q -f raw data.raw 16M
    qemu-io -f raw -c 'write -q -P 7 0 16M' data.raw >/dev/null
    qemu-img convert -c -f raw -O qcow2 data.raw file-A.img
    run mg -drive file=file-A.img,if=virtio,format=qcow2 -guest profile=stamp,rw=randrw,rate_iops=0,iodepth=8,size=16M \
        -c 'sleep 1s' -c 'expect guest clean'
    assert_status 0
    assert_clean file-A.img
}

@test "internal snapshots keep their content under a guest that writes" {
    qemu-img create -q -f qcow2 file-A.img 32M
    qemu-io -f qcow2 -c 'write -q -P 1 0 32M' file-A.img >/dev/null
    qemu-img snapshot -c keep file-A.img
    qemu-io -f qcow2 -c 'write -q -P 2 0 4M' file-A.img >/dev/null
    qemu-img convert -O raw -l snapshot.name=keep file-A.img keep.raw
    run mg -drive file=file-A.img,if=virtio,format=qcow2 -guest profile=stamp,rate_iops=0,iodepth=8,size=32M \
        -c 'sleep 1s' -c 'expect guest clean'
    assert_status 0
    assert_clean file-A.img
    qemu-img convert -O raw -l snapshot.name=keep file-A.img after.raw
    cmp keep.raw after.raw
    qemu-img snapshot -a keep file-A.img
    same_content keep.raw file-A.img
}
