#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What an image may ask for that is neither in its name (hostile-names.bats) nor one wrong word of it
# (tests/qcow2/hostile.py): other files, contradictions, itself. And that no option, whoever wrote it, runs a command.

load ../lib.bash

setup() {
    common_setup
    export MG_TIMEOUT=10
    # The leak checker does not work under strace.
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS-}"
}

# with_data_file NAME [BITS]: a.img, which names this external data file, and says with incompatible bits whether it has one.
with_data_file() {
    rm -f a.img a.img.raw
    qemu-img create -q -f qcow2 -o data_file=a.img.raw a.img 4M
    python3 -c '
import struct, sys
name, bits = sys.argv[1].encode(), int(sys.argv[2])
with open("a.img", "r+b") as image:
    head = image.read(4096)
    at = head.index(bytes.fromhex("44415441"), 104)
    image.seek(at)
    image.write(struct.pack(">II", 0x44415441, len(name)) + name + bytes(-len(name) % 8) + bytes(8))
    image.seek(72)
    image.write(struct.pack(">Q", bits))' "$1" "${2-4}"
    cp a.img before.img
}

# names_it_opens OPTIONS: what the program opens, with these options of the drive, is in the file opened.
names_it_opens() {
    # shellcheck disable=SC2034 # for assert_status
    status=0
    timeout -k 5 20 strace -f -o trace -e trace=open,openat,openat2,connect "$MERGANSER" \
        -drive "file=a.img,if=virtio,format=qcow2$1" -guest profile=none -c quit >mg.out 2>&1 </dev/null 3>&- || status=$?
    output=$(cat mg.out)
    grep -vE 'ENOENT' trace >opened
    grep -q '"[^"]*a\.img"' opened || fail "the trace shows nothing"
}

@test "an external data file that a guest names is refused, and not even opened" {
    local name
    mkfifo pipe
    printf secret >secret
    for name in "$PWD/secret" pipe 'json:{"driver":"file","filename":"secret"}' nbd:localhost:1; do
        with_data_file "$name"
        names_it_opens ''
        assert_status 1
        assert_output 'External data files are not supported'
        cmp a.img before.img
        run grep -E '"([^"]*/)?(secret|pipe)"|connect\(.*INET' opened
        [ "$output" = "" ] || fail "$output"
    done
}

@test "the name of a data file without its bit is an extension like others: kept, and not followed" {
    printf secret >secret
    with_data_file secret 0
    names_it_opens ''
    assert_status 0
    run grep 'secret"' opened
    [ "$output" = "" ] || fail "$output"
    grep -aq secret a.img
}

@test "an image that is dirty and corrupt is not repaired on the way, not written, and can be read" {
    qemu-img create -q -f qcow2 a.img 4M
    qemu-io -f qcow2 -c 'write -q -P 5 0 64k' a.img
    printf '\0\0\0\0\0\0\0\3' | dd of=a.img bs=1 seek=72 conv=notrunc status=none
    cp a.img before.img
    run qemu-io -f qcow2 -c 'write 0 64k' a.img
    assert_output 'qcow2: Image is corrupt; cannot be opened read/write'
    run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c quit
    assert_status 1
    [ "$output" = "merganser: -drive file=a.img,if=virtio,format=qcow2: qcow2: Image is corrupt; cannot be opened read/write" ]
    cmp a.img before.img
    run mg -drive file=a.img,if=virtio,format=qcow2,readonly=on -guest profile=none -c 'qemu-io virtio0 "read -P 5 0 64k"'
    assert_status 0
    refute_output 'verification failed'
    cmp a.img before.img
}

@test "a file is once in a chain, however its name is spelt" {
    local name
    qemu-img create -q -f qcow2 a.img 4M
    ln a.img hard.img
    ln -s a.img soft.img
    mkdir dir
    for name in "$PWD/a.img" ./a.img dir/../a.img hard.img soft.img file:a.img \
        'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.img"}}'; do
        qemu-img rebase -u -b "$name" -F qcow2 a.img
        run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c quit
        assert_status 1
        assert_output 'is already part of the chain: the chain is a loop'
    done
    # Nor as something else: whoever writes above would change what lies below.
    qemu-img rebase -u -b hard.img -F raw a.img
    run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c quit
    assert_status 1
    assert_output 'is already part of the chain: the chain is a loop'
}

@test "there is nothing in the programs that could run a command" {
    local program
    for program in "$MERGANSER" "$BUILD_DIR/merganser-img"; do
        nm -D --undefined-only "$program" | awk '{ sub(/@.*/, "", $2); print $2 }' >symbols
        grep -qx fork symbols || grep -qx pread64 symbols # -daemonize; and the list is one
        run grep -xE '(f?exec(l|le|lp|v|ve|vp|vpe|veat)?|system|popen|posix_spawnp?|wordexp|dlopen|dlmopen)' symbols
        [ "$output" = "" ] || fail "$program: $output"
    done
}

@test "words that are commands elsewhere are files, or refused" {
    local words
    for words in '-drive file=|touch_x,if=virtio,format=raw' '-qmp exec:touch_x' '-chardev exec,id=x,cmd=touch_x' '-incoming exec:touch_x'; do
        # shellcheck disable=SC2086
        run timeout -k 5 20 strace -f -o trace -e trace=execve,execveat "$MERGANSER" ${words/_/ } -c quit
        [ "$status" != 0 ] || fail "$words: taken"
        [ "$(grep -c exec trace)" = 1 ] || fail "$words: $(cat trace)"
    done
    [ ! -e x ]
}

@test "a snapshot of a disk that no table could describe is refused" {
    local program=$BUILD_DIR/merganser-img
    qemu-img create -q -f qcow2 a.img 4M
    qemu-img snapshot -c one a.img
    python3 -c '
import struct
with open("a.img", "r+b") as image:
    image.seek(64)
    table, = struct.unpack(">Q", image.read(8))
    image.seek(table + 40 + 8) # behind the size of the machine state, in the extra data
    assert struct.unpack(">Q", image.read(8))[0] == 4 << 20
    image.seek(table + 40 + 8)
    image.write(struct.pack(">Q", 1 << 60))'
    run timeout -k 2 20 "$program" convert -l one -O raw a.img b.img
    assert_status 1
    assert_output "Snapshot's disk is too large"
}
