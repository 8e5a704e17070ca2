#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What NBD clients see of a disk, judged by the clients of others.

load ../lib.bash

URI='nbd+unix:///virtio0?socket=nbd.sock'

start_export() {
    mg_start -S -drive "$(chain_drive "$@")"
    run hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add virtio0'
    [ -z "$output" ] || fail "$output"
}

wait_for_jobs() {
    local i
    for ((i = 0; i < 200; i++)); do
        [[ $(hmp 'info block-jobs') != *"No active jobs"* ]] || return 0
        sleep 0.1
    done
    fail "the job does not end"
}

@test "nbdinfo shows size, flags and the context" {
    make_chain file-A.img file-B.img
    start_export A B
    timeout -k 5 20 nbdinfo --json "$URI" >info.json
    run jq -c '.exports[0] | [."export-size", .is_read_only, .can_flush, .can_fua, .can_multi_conn, .can_df, .contexts,
        .block_minimum // .block_size_minimum // 1]' info.json
    [ "$output" = '[67108864,true,true,true,true,true,["base:allocation"],1]' ] || fail "$output"
    run timeout -k 5 20 nbdinfo --list 'nbd+unix:///?socket=nbd.sock'
    assert_output 'export="virtio0"'
    assert_output 'using structured packets'
}

@test "the socket is for its owner alone and goes with the server" {
    make_chain file-A.img
    start_export A
    [ "$(stat -c %a nbd.sock)" = 600 ]
    hmp nbd_server_stop
    [ ! -e nbd.sock ]
    hmp 'nbd_server_start unix:nbd.sock' quit
    mg_wait
    [ ! -e nbd.sock ]
}

@test "nbdcopy reads what the chain holds over several connections" {
    make_chain file-A.img file-B.img file-C.img
    offline_merge file-C.img merged.raw
    start_export A B C
    timeout -k 5 30 nbdcopy --connections=4 "$URI" copy.raw
    cmp merged.raw copy.raw
}

@test "a client without structured replies reads the same" {
    make_chain file-A.img file-B.img
    offline_merge file-B.img merged.raw
    start_export A B
    # Reads of 32 MiB, the most that the protocol lets a client ask for at once.
    cat >simple.py <<'END'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect("nbd.sock")
f = s.makefile("rwb")
assert f.read(18)[:8] == b"NBDMAGIC"
name = b"virtio0"
f.write(struct.pack(">I", 1) + b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
f.flush()
size, flags = struct.unpack(">QH", f.read(10))
assert f.read(124) == bytes(124)
for i, offset in enumerate(range(0, size, 32 << 20)):
    f.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, offset, 32 << 20))
f.flush()
parts = {}
while len(parts) * (32 << 20) < size:
    magic, error, handle = struct.unpack(">IIQ", f.read(16))
    assert (magic, error) == (0x67446698, 0), (hex(magic), error)
    parts[handle] = f.read(32 << 20)
for i in sorted(parts):
    sys.stdout.buffer.write(parts[i])
END
    timeout -k 5 30 python3 simple.py >copy.raw
    cmp merged.raw copy.raw
}

@test "qemu-img compares, informs and maps over NBD as on the file" {
    make_chain file-A.img file-B.img file-C.img
    start_export A B C
    run timeout -k 5 20 qemu-img info -f raw "$URI"
    assert_output 'virtual size: 64 MiB'
    timeout -k 5 30 qemu-img compare -U -f raw -F qcow2 "$URI" file-C.img
    # Which ranges read as zeroes: the same ones, whoever tells.
    zeroes() {
        jq -c 'reduce .[] as $e ([]; if length > 0 and .[-1][2] == $e.zero then .[-1][1] += $e.length
               else . + [[$e.start, $e.length, $e.zero]] end)'
    }
    timeout -k 5 20 qemu-img map -f raw --output=json "$URI" | zeroes >over-nbd
    qemu-img map -U -f qcow2 --output=json file-C.img | zeroes >of-file
    diff of-file over-nbd
}

@test "nbdinfo's map has holes and data" {
    qemu-img create -q -f qcow2 file-A.img 1G
    qemu-io -f qcow2 -c 'write -q -P 1 512M 128k' -c 'write -q -z 512M 64k' file-A.img
    start_export A
    run timeout -k 5 20 nbdinfo --map "$URI"
    expected='0 536936448 3 hole,zero
536936448 65536 0 data
537001984 536739840 3 hole,zero'
    [ "$(tr -s ' ' <<<"$output" | sed 's/^ //')" = "$expected" ] || fail "$output"
}

@test "compressed and zero clusters are read too" {
    make_chain file-A.img
    qemu-img convert -c -O qcow2 file-A.img packed.img
    qemu-img create -q -f qcow2 -b packed.img -F qcow2 file-B.img
    qemu-io -f qcow2 -c 'write -q -z 1M 300k' file-B.img
    offline_merge file-B.img merged.raw
    mg_start -S -drive file=file-B.img,if=virtio,format=qcow2
    hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add virtio0'
    timeout -k 5 30 nbdcopy "$URI" copy.raw
    cmp merged.raw copy.raw
    # Byte by byte, across borders of clusters and of zeroes.
    timeout -k 5 30 qemu-io -r -f raw -c 'read -v 1048570 20' "$URI" >over-nbd
    timeout -k 5 30 qemu-io -r -f raw -c 'read -v 1048570 20' merged.raw >of-file
    diff <(grep : over-nbd) <(grep : of-file)
}

@test "a layer in the midst of a chain is exported under a name of its own" {
    make_chain file-A.img file-B.img file-C.img
    offline_merge file-B.img merged.raw
    mg_start -drive "$(chain_drive A B C)"
    run hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add node-B yesterday'
    [ -z "$output" ] || fail "$output"
    timeout -k 5 30 nbdcopy 'nbd+unix:///yesterday?socket=nbd.sock' copy.raw
    cmp merged.raw copy.raw
    # It stays what it was when the chain above lets it go.
    hmp 'block_stream virtio0'
    wait_for_jobs
    assert_chain file-C.img file-C.img
    timeout -k 5 30 nbdcopy 'nbd+unix:///yesterday?socket=nbd.sock' again.raw
    cmp merged.raw again.raw
    hmp 'nbd_server_remove yesterday'
}

@test "merges and snapshots run underneath and readers see the same" {
    make_chain file-A.img file-B.img file-C.img file-D.img
    offline_merge file-D.img merged.raw
    mg_start -S -drive "$(chain_drive A B C D)"
    hmp 'nbd_server_start unix:nbd.sock' 'nbd_server_add virtio0'
    for i in 1 2 3 4 5; do
        for ((n = 0; n < 10; n++)); do
            timeout -k 5 30 nbdcopy "$URI" - | cmp - merged.raw || echo "copy $i.$n"
        done >"differences$i" 2>&1 &
        copies[i]=$!
    done
    for layer in E F G; do
        run hmp "snapshot_blkdev virtio0 $layer.img" 'block_stream virtio0 30M'
        [ -z "$output" ] || fail "$output"
        wait_for_jobs
    done
    for i in 1 2 3 4 5; do
        wait "${copies[i]}"
        [ ! -s "differences$i" ] || fail "$(cat "differences$i")"
    done
    hmp quit
    mg_wait
    assert_chain G.img G.img
}
