#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Who holds an image and who comes: every pairing of ways to open one file, with either program on either side. One table
# says what QEMU 7.2 says; the answer must not depend on whose program it is.
#
#   w  qcow2, read-write                  W  a raw disk of a guest, read-write
#   r  qcow2, read-only                   R  a raw disk of a guest, read-only
#   u  qcow2, read-only, force-share      b  the backing file of a disk that is read-write

load ../lib.bash

#              comer:  w r u W R b
TABLE='
holder w:              w s - w s s
holder r:              w - - w - -
holder u:              - - - - - -
holder W:              w s - w s s
holder R:              w - - w - -
holder b:              w - - w - -
'

setup() {
    common_setup
    qemu-img create -q -f qcow2 image.img 4M
    local who
    for who in holder comer; do
        qemu-img create -q -f qcow2 -b image.img -F qcow2 $who.img
    done
}

teardown() {
    let_go
    common_teardown
}

# drive_of WAY WHO: the -drive that opens image.img in that way, in the words that both programs have.
drive_of() {
    case $1 in
    w) echo file=image.img,format=qcow2,if=virtio ;;
    r) echo file=image.img,format=qcow2,if=virtio,readonly=on ;;
    u) echo file=image.img,format=qcow2,if=virtio,readonly=on,force-share=on ;;
    W) echo file=image.img,format=raw,if=virtio ;;
    R) echo file=image.img,format=raw,if=virtio,readonly=on ;;
    b) echo "file=$2.img,format=qcow2,if=virtio" ;;
    esac
}

qemu_system() {
    timeout -k 2 20 qemu-system-x86_64 -nodefaults -display none -S -m 16 -machine q35,accel=tcg "$@" 3>&-
}

# hold PROGRAM WAY: until let_go. Returns when it is held.
hold() {
    HOLDER='' SPOOL=''
    case $1 in
    qemu)
        qemu_system -daemonize -pidfile "$PWD/pid" -drive "$(drive_of "$2" holder)"
        HOLDER=$(cat pid)
        ;;
    qemu-nbd)
        qemu-nbd --fork --pid-file="$PWD/pid" -k "$PWD/nbd.sock" -f qcow2 $([ "$2" = w ] || echo -r) image.img 3>&-
        HOLDER=$(cat pid)
        ;;
    ours)
        rm -f held
        timeout -k 2 30 "$MERGANSER" -drive "$(drive_of "$2" holder)" -guest profile=none -c 'info name' -c 'sleep 30s' \
            >held 2>&1 </dev/null 3>&- &
        HOLDER=$!
        local i
        for ((i = 0; i < 200; i++)); do
            [ ! -s held ] || break
            sleep 0.02
        done
        grep -q 'info name' held || fail "$(cat held)"
        ;;
    esac
}

let_go() {
    [ -n "${HOLDER-}" ] || return 0
    kill "$HOLDER" 2>/dev/null || true
    wait "$HOLDER" 2>/dev/null || true
    # A daemon is somebody else's child: its files are closed before anybody has asked how it ended.
    while grep -q '^State:.[^Z]' "/proc/$HOLDER/status" 2>/dev/null; do
        sleep 0.02
    done
    HOLDER=''
}

# come PROGRAM WAY: prints what is said, without what stands before it; nothing when it is let in.
come() {
    case $1$2 in
    ours*) mg -drive "$(drive_of "$2" comer)" -guest profile=none -c quit ;;
    qemuw) qemu-io -f qcow2 -c quit image.img ;;
    qemur) qemu-io -r -f qcow2 -c quit image.img ;;
    qemuu) qemu-io -r -U -f qcow2 -c quit image.img ;;
    qemub) qemu-io -f qcow2 -c quit comer.img ;;
    qemu*) qemu_system -drive "$(drive_of "$2" comer)" -monitor stdio <<<quit ;;
    esac 2>&1 | sed -n 's/.*Failed to get/Failed to get/p; /^Is another/p'
}

# What the letters of the table stand for.
words() {
    case $1 in
    w) printf 'Failed to get "write" lock\nIs another process using the image [image.img]?' ;;
    s) printf 'Failed to get shared "write" lock\nIs another process using the image [image.img]?' ;;
    -) ;;
    esac
}

# row PROGRAM WAY: all who come while it is held so; every difference from the table is printed.
row() {
    local holder=$1 way=$2 answers comer i=0 program said
    read -ra answers <<<"$(sed -n "s/^holder $way: *//p" <<<"$TABLE")"
    hold "$holder" "$way" || return 1
    for comer in w r u W R b; do
        for program in qemu ours; do
            said=$(come $program $comer)
            [ "$said" = "$(words "${answers[i]}")" ] ||
                echo "$holder holds it as $way, $program comes as $comer: '$said', not '$(words "${answers[i]}")'"
        done
        i=$((i + 1))
    done
    let_go
}

# pairings PROGRAM WAY...
pairings() {
    local program=$1 way
    shift
    for way; do
        row "$program" "$way" || return 1
    done >differences
    [ ! -s differences ] || fail "$(cat differences)"
}

@test "what merganser holds is refused and shared as if QEMU held it" {
    pairings ours w r u W R b
}

@test "what QEMU holds merganser meets as QEMU does" {
    pairings qemu w r u W R b
}

@test "so with what qemu-nbd holds" {
    pairings qemu-nbd w r
}

@test "a raw disk is shared with other writers when share-rw=on says so on both sides" {
    local disk=(-drive file=image.img,format=raw,if=none,id=d) said
    local sharing=("${disk[@]}" -device virtio-blk-pci,drive=d,share-rw=on)
    timeout -k 2 30 "$MERGANSER" "${sharing[@]}" -guest profile=none -c 'info name' -c 'sleep 30s' >held 2>&1 </dev/null 3>&- &
    HOLDER=$!
    until [ -s held ]; do
        sleep 0.02
    done
    mg "${sharing[@]}" -guest profile=none -c quit
    qemu_system "${sharing[@]}" -monitor stdio <<<quit
    for said in "$(come qemu W)" "$(come ours W)"; do
        [ "$said" = "$(words s)" ] || fail "$said"
    done
}

@test "merganser-img says what qemu-img says of an image that is held, whoever holds it" {
    local holder way command
    for holder in ours qemu; do
        for way in w r W; do
            hold $holder $way
            for command in info 'info -U' check map 'compare image.img' 'convert -O raw image.img' 'resize image.img'; do
                local words
                read -ra words <<<"$command"
                case $command in
                convert*) words+=(copy.raw) ;;
                resize*) words+=(4M) ;;
                *) words+=(image.img) ;;
                esac
                run qemu-img "${words[@]}"
                local theirs=$output code=$status
                run "$BUILD_DIR/merganser-img" "${words[@]}"
                [ "${output//merganser-img/qemu-img}" = "$theirs" ] || fail "$holder holds it as $way, $command: $output, not $theirs"
                [ "$status" = "$code" ]
            done
            let_go
        done
    done
}
