#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Files that are no images, layers that are not there or not ours: one clear sentence, exit code 1, and nothing is changed.

load ../lib.bash

# refused OPTIONS SENTENCE: -drive with these options is refused with exactly this.
refused() {
    run mg -drive "$1" -c quit
    assert_status 1
    [ "$output" = "merganser: -drive $1: $2" ] || fail "$output"
}

# others FILE MODE: FILE belongs to somebody else (where we may give it away), with this mode.
others() {
    [ "$(id -u)" != 0 ] || chown 65534 "$1"
    chmod "$2" "$1"
}

# powerless ARGS...: mg without root's power over other people's files.
powerless() {
    local drop=()
    [ "$(id -u)" != 0 ] || drop=(setpriv --bounding-set=-all --inh-caps=-all)
    timeout -k 5 "$MG_TIMEOUT" "${drop[@]}" "$MERGANSER" "$@" </dev/null 3>&-
}

@test "a file that is missing" {
    refused file=x.img,if=virtio "Could not open 'x.img': No such file or directory"
}

@test "a directory, a pipe, a device that is no disk" {
    local file
    mkdir dir
    mkfifo pipe
    for file in dir pipe /dev/null /dev/full; do
        refused "file=$file,if=none,format=raw" "'file' driver requires '$file' to be a regular file"
        refused "file=$file,if=none,format=qcow2" "'file' driver requires '$file' to be a regular file"
        refused "file=$file,if=none" "'file' driver requires '$file' to be a regular file"
    done
}

@test "a layer that is missing" {
    qemu-img create -q -f qcow2 -u -b gone.img -F qcow2 b.img 16M
    qemu-img create -q -f qcow2 -u -b b.img -F qcow2 c.img 16M
    refused file=c.img,if=virtio,format=qcow2 \
        "Could not open backing file: Could not open backing file: Could not open 'gone.img': No such file or directory"
}

@test "a layer that is missing far below: how far is said once, under --qemu-compat as often as QEMU says it" {
    local i
    for i in {1..6}; do
        qemu-img create -q -f qcow2 -u -b $((i - 1)).img -F qcow2 $i.img 16M
    done
    run mg -drive file=6.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not open backing file (6 images down): Could not open '0.img': No such file or directory"
    run mg --qemu-compat -drive file=6.img,if=virtio,format=qcow2 -c quit
    [ "$(grep -o 'Could not open backing file: ' <<<"$output" | wc -l)" = 6 ]
}

@test "a layer that may not be read" {
    qemu-img create -q -f qcow2 a.img 16M
    qemu-img create -q -f qcow2 -b a.img -F qcow2 b.img
    others a.img 000
    run powerless -drive file=b.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not open backing file: Could not open 'a.img': Permission denied"
}

@test "a file that may only be read is opened with readonly=on, and then not written" {
    qemu-img create -q -f qcow2 a.img 16M
    others a.img 444
    run powerless -drive file=a.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not open 'a.img': Permission denied"
    cp a.img before.img
    run powerless -drive file=a.img,if=virtio,format=qcow2,readonly=on -c 'sleep 200ms' -c 'info guest' \
        -c '!qemu-io virtio0 "write 0 64k"' -c 'expect guest clean'
    assert_status 0
    assert_output "writes=0 "
    refute_output "reads=0 "
    assert_output "Block node is read-only"
    cmp a.img before.img
}

@test "a chain that bites its own tail" {
    local mode
    qemu-img create -q -f qcow2 a.img 16M
    qemu-img create -q -f qcow2 -b a.img -F qcow2 b.img
    qemu-img rebase -u -b b.img -F qcow2 a.img
    for mode in on off; do
        refused file=b.img,if=virtio,format=qcow2,readonly=$mode "Could not open backing file: Could not open backing file: \
Backing file 'b.img' is already part of the chain: the chain is a loop"
    done
}

@test "an image that is its own backing file" {
    qemu-img create -q -f qcow2 a.img 16M
    ln a.img link.img
    qemu-img rebase -u -b link.img -F qcow2 a.img
    refused file=a.img,if=virtio,format=qcow2 \
        "Could not open backing file: Backing file 'link.img' is already part of the chain: the chain is a loop"
}

@test "a backing name with a protocol that is not there" {
    qemu-img create -q -f qcow2 -u -b nbd://localhost/x -F raw a.img 16M
    refused file=a.img,if=virtio,format=qcow2 "Could not open backing file: Unknown protocol 'nbd'"
}

@test "a snapshot onto what cannot hold an image changes nothing" {
    qemu-img create -q -f qcow2 a.img 16M
    mkdir dir
    mkfifo pipe
    cp a.img before.img
    run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c '!snapshot_blkdev virtio0 dir' -c '!snapshot_blkdev virtio0 pipe' \
        -c '!snapshot_blkdev virtio0 gone/x.img' -c '!snapshot_blkdev virtio0 /dev/null' -c '!snapshot_blkdev virtio0 a.img' \
        -c 'expect chain virtio0 = a'
    assert_status 0
    assert_output "Error: Could not create 'dir': Is a directory"
    assert_output "Error: 'file' driver requires 'pipe' to be a regular file"
    assert_output "Error: Could not create 'gone/x.img': No such file or directory"
    assert_output "Error: 'file' driver requires '/dev/null' to be a regular file"
    assert_output 'Error: Failed to get "write" lock'
    [ -d dir ] && [ -p pipe ] && [ -c /dev/null ]
    cmp a.img before.img
}

@test "every length of a cut image is refused or read, and never crashes" {
    local cut size
    qemu-img create -q -f qcow2 -o cluster_size=512 a.img 256k
    qemu-io -f qcow2 -c 'write -q -P 7 0 128k' a.img >/dev/null
    qemu-img snapshot -c one a.img
    qemu-io -f qcow2 -c 'write -q -P 8 64k 4k' a.img >/dev/null
    size=$(stat -c %s a.img)
    for ((cut = 0; cut < size; cut += cut < 4096 ? 251 : 7919)); do
        cp a.img cut.img
        truncate -s $cut cut.img
        run mg -drive file=cut.img,if=virtio,format=qcow2 -guest profile=none --on-error=continue -c 'qemu-io virtio0 "read 0 256k"' \
            -c 'qemu-io virtio0 "write -P 3 96k 32k"' -c 'block_stream virtio0' -c 'wait all done 5s'
        case $status in
        1) [ "$(wc -l <<<"$output")" = 1 ] || fail "$cut: $output" ;;
        0 | 3 | 4 | 6) ;;
        *) fail "cut at $cut: exit code $status: $output" ;;
        esac
    done
}
