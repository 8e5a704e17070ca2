#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Below QEMU's line a hint says what would have worked; --qemu-compat takes all hints away.

load ../lib.bash

quiet() {
    mg -guest profile=none "$@"
}

@test "an argument that is neither speed nor image gets QEMU's line and the candidates" {
    make_chain file-A.img file-B.img file-C.img
    run quiet -drive "$(chain_drive A B C)" -c 'block_stream virtio0 X'
    assert_status 3
    [ "${lines[1]}" = "invalid size" ]
    [ "${lines[2]}" = 'Try "help block_stream" for more information' ]
    [ "${lines[3]}" = "block_stream virtio0 X" ]
    [ "${lines[4]}" = "                     ^" ]
    [ "${lines[5]}" = "The images below 'virtio0' are: B (file-B.img), A (file-A.img)." ]
}

@test "a name that could be two images is refused with both" {
    qemu-img create -q -f qcow2 disk.raw 1M
    qemu-img create -q -f qcow2 -b disk.raw -F qcow2 disk.old
    qemu-img create -q -f qcow2 -b disk.old -F qcow2 top.img
    run quiet -drive file=top.img,if=virtio,format=qcow2 -c 'block_stream virtio0 disk'
    assert_status 3
    assert_output "Error: 'disk' could be 'disk.old' or 'disk.raw' of the backing chain"
}

@test "near misses of commands and topics are named" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" -c 'blok_stream virtio0'
    assert_output "unknown command: 'blok_stream'
                  ^~~~~~~~~~~
Did you mean: block_stream."
    run quiet -drive "$(chain_drive A)" -c 'info blokstats'
    assert_output "unknown command: 'info blokstats'
                       ^~~~~~~~~
Did you mean: blockstats."
}

@test "a caret stands below the bad word, or where a word is missing" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" --on-error=continue -c 'info status y z' -c 'block_stream' -c 'info block -x'
    assert_output 'status: extraneous characters at the end of line
Try "help info status" for more information
info status y z
            ^
'
    assert_output 'Try "help block_stream" for more information
block_stream
            ^
'
    assert_output 'info block -x
           ^~'
}

@test "a line with characters that a terminal does not show as they are has no caret" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" -c $'fo\x01xyz'
    [[ $output == *"unknown command"* && $output != *^* ]]
}

@test "a device, a job or a format that is nearly right is named alone" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" --on-error=continue -c 'block_stream virtio' -c 'snapshot_blkdev virtio0 x.img qcow'
    assert_output "Error: Cannot find device='virtio' nor node-name='virtio'
                           ^~~~~~
Did you mean: virtio0.
(qemu)"
    assert_output "Error: Unknown file format 'qcow'
                            ^~~~
Did you mean: qcow2."
}

@test "commands of QMP name what is like them here" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" --on-error=continue -c 'block-stream virtio0' -c 'query-block-jobs' \
        -c 'blockdev-snapshot-sync x' -c 'help query-status' -c 'qmp_capabilities'
    assert_output "'block-stream' is a command of QMP; here it is: block_stream"
    assert_output "'query-block-jobs' is a command of QMP; here it is: info block-jobs"
    assert_output "'blockdev-snapshot-sync' is a command of QMP; here it is: snapshot_blkdev"
    assert_output "'query-status' is a command of QMP; here it is: info status"
    assert_output "'qmp_capabilities' is a command of QMP, and there is none like it here."
}

@test "devices, jobs and formats that exist are named" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" -c '-block_stream nosuch' -c '-block_job_cancel nosuch' \
        -c '-snapshot_blkdev virtio0 x.img nosuch' -c '-snapshot_blkdev nosuch x.img'
    assert_output "Error: Cannot find device='nosuch' nor node-name='nosuch'
                           ^~~~~~
The devices are: virtio0."
    assert_output "Error: Block job 'nosuch' not found
                  ^~~~~~
No job is running."
    assert_output "Error: Unknown file format 'nosuch'
                            ^~~~~~
The formats are: "
}

@test "help explains arguments and shows an example" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" -c 'help block_stream'
    [ "${lines[1]}" = "block_stream device [speed [base]] -- copy data from a backing file into a block device" ]
    assert_output "Example: block_stream virtio0"
}

@test "the list of commands says of each what it does, as a whole" {
    run quiet -nodefaults -c help
    assert_output "  device_add             add device, like -device on the command line"
    assert_output "  snapshot_blkdev        initiates a live snapshot of device"
}

@test "under --qemu-compat there are no hints and no words of ours" {
    make_chain file-A.img file-B.img
    run quiet --qemu-compat --on-error=continue -drive "$(chain_drive A B)" -c 'block_stream virtio0 A' -c 'info chain' -c 'wait' \
        -c 'block-stream virtio0' -c 'help block_stream'
    [ "$output" = '(qemu) block_stream virtio0 A
invalid size
Try "help block_stream" for more information
(qemu) info chain
unknown command: '"'info chain'"'
(qemu) wait
unknown command: '"'wait'"'
(qemu) block-stream virtio0
unknown command: '"'block-stream'"'
(qemu) help block_stream
block_stream device [speed [base]] -- copy data from a backing file into a block device' ]
}

@test "device_add help lists models, device_add MODEL,help its properties, as -device does" {
    run mg -S -drive if=none -c 'device_add help'
    assert_status 0
    [ "$(tail -n +2 <<<"$output")" = "$(mg -device help)" ]
    run mg -S -drive if=none -c 'device_add virtio-blk,help'
    [ "$(tail -n +2 <<<"$output")" = "$(mg -device virtio-blk,help)" ]
    run mg -S -drive if=none -c 'device_add ?'
    [ "$(tail -n +2 <<<"$output")" = "$(mg -device help)" ]
    run mg -S -drive if=none -c 'device_add virtio-blk,?'
    [ "$(tail -n +2 <<<"$output")" = "$(mg -device virtio-blk,help)" ]
}

@test "help names each command once, and each group" {
    run quiet -c help
    "$MERGANSER" --tables | python3 -c '
import json, sys
tables = json.load(sys.stdin)
wanted = sorted(row["name"] for row in tables["human"])
lines = sys.argv[1].splitlines()
names = sorted(line.split()[0] for line in lines if line.startswith("  "))
groups = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
assert names == wanted, set(names) ^ set(wanted) or names
assert len(groups) == len(set(groups)), groups' "$output"
}

@test "many names are counted, not listed; where there is no job or no image below, that is said" {
    local i drives=() layers=()
    for i in {1..14}; do drives+=(-drive "if=none,id=drive-$i"); done
    run mg -S "${drives[@]}" -c 'info block nosuch'
    assert_output " more."
    for i in {1..12}; do layers+=("layer-$i.img"); done
    CHAIN_SIZE=1M
    local below=
    for i in "${layers[@]}"; do
        qemu-img create -q -f qcow2 ${below:+-b "$below" -F qcow2} "$i" 1M
        below=$i
    done
    run mg -S -guest profile=none -drive "file=$below,if=virtio,format=qcow2" -c 'block_stream virtio0 nosuch'
    assert_output " and "
    assert_output " more"
    run mg -S -guest profile=none -drive file=layer-1.img,if=virtio,format=qcow2 -c 'block_job_pause nosuch' -c 'block_stream virtio0 0 nosuch' --on-error=continue
    assert_output "'virtio0' has no backing file."
}

@test "an error without near words has no hint" {
    run mg -S -c 'qqqqqqqqqq'
    assert_output "Type 'help' for a list."
    run mg -S -c 'help qqqqqqqqqq' -c 'help info qqqqqq' --on-error=continue
    assert_output "unknown command: 'qqqqqqqqqq'"
    run mg -S -c 'help blok_stream' -c 'help info blok' --on-error=continue
    assert_output "Did you mean: block_stream."
}
