#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Wrong headers: one clear sentence on standard error, exit code 1, and the image is left as it is. Where QEMU refuses too the
# sentence is QEMU's, asked of the real one; where it opens the image or has other wishes (a secret, a data file) it is ours.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 x.img 1G
}

# poke OFFSET HEX: bytes into x.img.
poke() {
    local escaped
    escaped=$(printf '%s' "$2" | sed 's/../\\x&/g')
    printf '%b' "$escaped" | dd of=x.img bs=1 seek="$(($1))" conv=notrunc status=none
}

# Open x.img; the sentence behind the option is in $sentence. The file must not change.
refused() {
    local option=file=x.img,if=none,format=qcow2,$1
    cp --sparse=always x.img before.img
    run mg -drive "$option" -c quit
    assert_status 1
    [[ $output == "merganser: -drive $option: "* ]] || fail "$output"
    sentence=${output#"merganser: -drive $option: "}
    cmp x.img before.img
}

# as_qemu: read-only and for writing, the words are those of qemu-io.
as_qemu() {
    local theirs mode
    declare -A flags=([on]=-r [off]="")
    for mode in on off; do
        # shellcheck disable=SC2086 # nothing, or one word
        theirs=$(qemu-io ${flags[$mode]} -f qcow2 -c quit x.img 2>&1) && fail "qemu opens it"
        theirs=${theirs#"qemu-io: can't open device x.img: "}
        refused readonly=$mode
        # A hint of QEMU's may follow in lines of its own.
        [ "$(head -n 1 <<<"$sentence")" = "$(head -n 1 <<<"$theirs")" ] || fail "$sentence, not $theirs"
    done
}

# ours SENTENCE
ours() {
    local mode
    for mode in on off; do
        refused readonly=$mode
        [ "$sentence" = "$1" ] || fail "$sentence, not $1"
    done
}

@test "another magic number" { poke 0 51464900; as_qemu; }
@test "version 1" { poke 4 00000001; as_qemu; }
@test "version 4" { poke 4 00000004; as_qemu; }
@test "a backing file name far out" { poke 8 0000000000011170; as_qemu; }
@test "a backing file name that is too long" { poke 8 000000000000ea6000000400; as_qemu; }
@test "a backing file name over the end of the header cluster" { poke 8 000000000000fffa00000007; as_qemu; }
@test "clusters of 256 bytes" { poke 20 00000008; as_qemu; }
@test "clusters of 4 MiB" { poke 20 00000016; as_qemu; }
@test "clusters of 2^4294967295 bytes" { poke 20 ffffffff; as_qemu; }
@test "4 EiB" { poke 24 4000000000000000; as_qemu; }
@test "an unknown encryption method" { poke 32 00000003; as_qemu; }
@test "an empty L1 table" { poke 36 00000000; as_qemu; }
@test "an L1 table for half of the disk" { poke 36 00000001; as_qemu; }
@test "an L1 table of 2^31 entries" { poke 36 7fffffff; as_qemu; }
@test "an L1 table at an odd place" { poke 40 0000000000030001; as_qemu; }
@test "an L1 table at 2^64 - 64 KiB" { poke 40 ffffffffffff0000; as_qemu; }
@test "a reference count table at an odd place" { poke 48 0000000000010200; as_qemu; }
@test "a reference count table at 2^63 - 64 KiB" { poke 48 7fffffffffff0000; as_qemu; }
@test "no reference count table" { poke 56 00000000; as_qemu; }
@test "a reference count table of 129 clusters" { poke 56 00000081; as_qemu; }
@test "a reference count table of 2^32 - 1 clusters" { poke 56 ffffffff; as_qemu; }
@test "65537 snapshots" { poke 60 00010001; as_qemu; }
@test "a snapshot table at an odd place" { poke 60 000000010000000000010001; as_qemu; }
@test "an unknown incompatible feature" { poke 72 0000000000000020; as_qemu; }
@test "unknown incompatible features, some with names" {
    poke 72 00000000000000e0
    poke 0x78 0005"$(printf 'time travel' | xxd -p)"00
    poke 0xa8 0006"$(printf 'telepathy' | xxd -p)"00
    as_qemu
    [[ $sentence == *"time travel, telepathy, Unknown incompatible feature: 80" ]]
}
@test "a compression type without its bit" { poke 104 01; as_qemu; }
@test "the bit of a compression type without one" { poke 72 0000000000000008; as_qemu; }
@test "an unknown compression type" { poke 104 02; as_qemu; }
@test "reference counts of 128 bits" { poke 96 00000007; as_qemu; }
@test "a header of 96 bytes" { poke 100 00000060; as_qemu; }
@test "a header longer than a cluster" { poke 100 00011170; as_qemu; }
@test "subclusters of 256 bytes" {
    qemu-img create -q -f qcow2 -o cluster_size=8k x.img 1M
    poke 72 0000000000000010
    as_qemu
}
@test "an extension longer than the cluster" { poke 112 12345678000186a0; as_qemu; }
@test "an extension of 2^32 - 1 bytes" { poke 112 12345678ffffffff; as_qemu; }
@test "a backing format of 100 letters" { poke 112 e2792aca00000064; as_qemu; }
@test "an encryption header without encryption" { poke 112 0537be7700000010; as_qemu; }
@test "a bitmap extension of another length" { poke 112 2385287500000017; as_qemu; }
@test "too much in a snapshot's entry" {
    qemu-img snapshot -c one x.img
    table=$((16#$(xxd -s 64 -l 8 -p x.img)))
    poke $((table + 36)) 00000401
    as_qemu
}

@test "an image marked corrupt is not written" {
    poke 72 0000000000000002
    theirs=$(qemu-io -f qcow2 -c quit x.img 2>&1) && false
    refused readonly=off
    [ "qemu-io: can't open device x.img: $sentence" = "$theirs" ]
    run mg -drive file=x.img,if=none,format=qcow2,readonly=on -c quit
    assert_status 0
}

@test "encryption with aes" { poke 32 00000001; ours "Encrypted images (aes) are not supported"; }
@test "encryption with luks" { poke 32 00000002; ours "Encrypted images (luks) are not supported"; }
@test "an external data file" { poke 72 0000000000000004; ours "External data files are not supported"; }
@test "a backing file name in the fields" { poke 8 000000000000003200000014; ours "Invalid backing file offset"; }
@test "an L1 table in the header" { poke 40 0000000000000000; ours "Active L1 table offset invalid"; }
@test "an L1 table beyond 2^56" { poke 40 0200000000000000; ours "Active L1 table offset invalid"; }
@test "an L1 table beyond the end" { poke 40 0000010000000000; ours "Active L1 table lies beyond the end of the file"; }
@test "a reference count table in the header" { poke 48 0000000000000000; ours "Reference count table offset invalid"; }
@test "a reference count table beyond the end" {
    poke 48 0004000000000000
    ours "Reference count table lies beyond the end of the file"
}
@test "two tables in one place" { poke 40 0000000000010000; ours "Reference count table and Active L1 table overlap"; }
@test "snapshots without a table" { poke 60 00000001; ours "Snapshot table offset invalid"; }
@test "a snapshot table beyond the end" {
    poke 60 000000010000010000000000
    ours "Snapshot table lies beyond the end of the file"
}
@test "a size of 2^64 - 1" { poke 24 ffffffffffffffff; ours "Image is too big"; }
@test "a file cut in the header" { truncate -s 100 x.img; ours "qcow2 header too short"; }
@test "a file cut in front of the L1 table" {
    truncate -s 196608 x.img
    ours "Active L1 table lies beyond the end of the file"
}
@test "a file cut in the L1 table" {
    truncate -s 196616 x.img
    ours "Active L1 table lies beyond the end of the file"
}
@test "an empty file" { truncate -s 0 x.img; ours "Image is not in qcow2 format"; }

@test "a wrong backing file is named" {
    qemu-img create -q -f qcow2 -b x.img -F qcow2 top.img
    poke 20 00000008
    run mg -drive file=top.img,if=none,format=qcow2 -c quit
    assert_status 1
    assert_output "Could not open backing file: "
    assert_output "Unsupported cluster size: 2^8"
}
