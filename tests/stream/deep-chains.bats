#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A chain of 1,000 layers is opened, read and merged as one of three is, on a small stack.

load ../lib.bash

# deep_chain N: 0000.img <- ... ; layer number i holds the byte i % 255 + 1 in cluster i % 256 alone, the base more. One
# layer is made by qemu-img; the others are written here, as a thousand runs of qemu-img take long.
deep_chain() {
    qemu-img create -q -f qcow2 0000.img 16M
    qemu-io -f qcow2 -c 'write -q -P 9 0 4M' 0000.img >/dev/null
    qemu-img create -q -u -f qcow2 -b 0000.img -F qcow2 template.img 16M
    python3 - "$1" <<'END'
import struct
import sys

CLUSTER = 65536
template = open("template.img", "rb").read()
name = struct.unpack(">Q", template[8:16])[0]
l1 = struct.unpack(">Q", template[40:48])[0]
table = struct.unpack(">Q", template[48:56])[0]
block = struct.unpack(">Q", template[table:table + 8])[0]
l2 = (len(template) + CLUSTER - 1) // CLUSTER * CLUSTER
data = l2 + CLUSTER
for i in range(1, int(sys.argv[1])):
    image = bytearray(data + CLUSTER)
    image[:len(template)] = template
    image[name:name + 8] = b"%04d.img" % (i - 1)
    image[l1:l1 + 8] = struct.pack(">Q", l2 | 1 << 63)
    at = l2 + i % 256 * 8
    image[at:at + 8] = struct.pack(">Q", data | 1 << 63)
    image[data:] = bytes([i % 255 + 1]) * CLUSTER
    at = block + l2 // CLUSTER * 2
    image[at:at + 4] = struct.pack(">HH", 1, 1)
    open("%04d.img" % i, "wb").write(image)
content = bytearray(16 << 20)
content[:4 << 20] = b"\x09" * (4 << 20)
for i in range(1, int(sys.argv[1])):
    content[i % 256 * CLUSTER:(i % 256 + 1) * CLUSTER] = bytes([i % 255 + 1]) * CLUSTER
open("merged.raw", "wb").write(content)
END
    assert_clean 0000.img 0001.img "$(printf %04d $(($1 - 1))).img"
}

@test "1,000 layers are opened, read and merged, on a stack of 256 KiB" {
    deep_chain 1000
    ulimit -s 256
    run mg -drive file=0999.img,if=virtio,format=qcow2 -c 'qemu-io virtio0 "read 0 16M"' -c 'block_stream virtio0 0 0500.img' \
        -c 'wait virtio0 done 30s' -c 'block_stream virtio0' -c 'wait virtio0 done 30s' -c 'expect chain virtio0 = 0999' -c 'expect guest clean'
    assert_status 0
    assert_chain 0999.img 0999.img
    assert_clean 0999.img
    same_content merged.raw 0999.img
}

@test "a snapshot on top of 1,000 layers, and a stream in their midst" {
    deep_chain 1000
    run mg -drive file=0999.img,if=virtio,format=qcow2 -c 'snapshot_blkdev virtio0 top.img' -c 'block_stream virtio0 0 0001.img' \
        -c 'wait virtio0 done 30s' -c 'expect chain virtio0 = 0000 <- 0001 <- top' -c 'expect guest clean'
    assert_status 0
    assert_chain top.img top.img 0001.img 0000.img
    assert_clean top.img
    same_content merged.raw top.img
}

@test "a missing layer at the bottom of 1,000 is named" {
    deep_chain 1000
    rm 0000.img
    run mg -drive file=0999.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not open '0000.img': No such file or directory"
}
