#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Names of backing files as somebody who means ill would record them. Whatever the name, the program neither waits nor
# crashes nor acts on what is no image: the chain is opened, or there is one sentence and nothing was changed.

load ../lib.bash

setup() {
    common_setup
    export MG_TIMEOUT=10
    qemu-img create -q -f qcow2 base.img 4M
    qemu-io -f qcow2 -c 'write -q -P 5 0 64k' base.img
    qemu-img create -q -f qcow2 plain.img 4M
}

# named [-l LENGTH] <NAME: a.img, whose header names the bytes of standard input, however many they are said to be.
named() {
    cp plain.img a.img
    python3 -c '
import struct, sys
name = sys.stdin.buffer.read()
length = int(sys.argv[1]) if len(sys.argv) > 1 else len(name)
with open("a.img", "r+b") as image:
    image.seek(8)
    image.write(struct.pack(">QI", 1024, length))
    image.seek(1024)
    image.write(name)' ${2+"$2"}
    cp a.img before.img
}

# refused SENTENCE: at once, and a.img is what it was.
refused() {
    run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c quit
    assert_status 1
    [ "$output" = "merganser: -drive file=a.img,if=virtio,format=qcow2: $1" ] || fail "$output"
    cmp a.img before.img
}

# opened CHAIN: with these layers; the base's content is seen through it.
opened() {
    run mg -drive file=a.img,if=virtio,format=qcow2,readonly=on -guest profile=none -c "expect chain virtio0 = $1" ${2+-c "$2"}
    assert_status 0
}

@test "protocols that are not there are named, and nothing is connected to" {
    local name
    for name in nbd://localhost/x nbd:unix:socket nbd+unix:///x http://localhost/x ssh://localhost/x fat:rw:/ gluster://h/v; do
        printf %s "$name" | named
        refused "Could not open backing file: Unknown protocol '${name%%:*}'"
    done
    python3 - 3>&- <<'END' &
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("socket")
s.listen(1)
s.settimeout(3)
try:
    s.accept()
    open("connected", "w")
except TimeoutError:
    pass
END
    while [ ! -S socket ]; do sleep 0.02; done
    printf nbd:unix:socket | named
    refused "Could not open backing file: Unknown protocol 'nbd'"
    kill $!
    [ ! -e connected ]
}

@test "devices, pipes, directories and loops of links are no images, and are not waited for" {
    local name
    mkfifo pipe
    mkdir dir
    ln -s one two
    ln -s two one
    for name in /dev/null /dev/zero /dev/full /dev/tty /dev/stdin pipe dir . / /proc/self/fd/0; do
        printf %s "$name" | named
        refused "Could not open backing file: 'file' driver requires '$name' to be a regular file"
    done
    printf one | named
    refused "Could not open backing file: Could not open 'one': Too many levels of symbolic links"
}

@test "json: that is no JSON, or too deep, or asks for what is not there" {
    printf 'json:{' | named
    run mg -drive file=a.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output 'Could not open backing file: Could not parse the JSON options: '
    python3 -c 'print("json:" + "[" * 1000, end="")' | named
    run mg -drive file=a.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output 'Could not open backing file: '
    printf 'json:{"driver":"nbd","host":"localhost"}' | named
    refused "Could not open backing file: Unknown driver 'nbd'"
    printf 'json:{"driver":"qcow2","file":{"driver":"file","filename":"/dev/zero"}}' | named
    refused "Could not open backing file: 'file' driver requires '/dev/zero' to be a regular file"
    cmp a.img before.img
}

@test "json: that names the image itself is a loop" {
    printf 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.img"}}' | named
    run mg -drive file=a.img,if=virtio,format=qcow2 -guest profile=none -c quit
    assert_status 1
    assert_output "the chain is a loop"
}

@test "json: a hundred thousand deep on the command line" {
    run mg -drive "file=json:$(python3 -c 'print("[" * 100000)')" -c quit
    assert_status 1
    assert_output 'Could not parse the JSON options'
}

@test "a name of 1,023 bytes is followed, one more is refused" {
    python3 -c 'print("." + "/" * (1023 - 9) + "base.img", end="")' | named
    opened 'base <- a' 'qemu-io virtio0 "read -P 5 0 64k"'
    refute_output 'verification failed'
    python3 -c 'print("." + "/" * (1024 - 9) + "base.img", end="")' | named
    refused 'Backing file name too long'
    printf base.img | named -l 4294967295
    refused 'Backing file name too long'
}

@test "a name longer than the host takes" {
    local name
    name=$(printf 'x%.0s' {1..300})
    printf %s "$name" | named
    refused "Could not open backing file: Could not open '$name': File name too long"
    run mg -drive "file=$(printf 'x/%.0s' {1..5000}),if=virtio,format=qcow2" -c quit
    assert_status 1
    assert_output ': File name too long'
}

@test "a name ends at its first NUL, as it does for QEMU" {
    printf 'base.img\0/etc/passwd' | named
    opened 'base <- a'
    [ "$(qemu-img info -U --output=json a.img | jq -r '."backing-filename"')" = base.img ]
    printf '\0\0\0\0' | named
    opened a
}

@test "a newline is part of a name" {
    cp base.img $'line\nbreak'
    printf 'line\nbreak' | named
    run mg -drive file=a.img,if=virtio,format=qcow2,readonly=on -guest profile=none -c 'qemu-io virtio0 "read -P 5 0 64k"'
    assert_status 0
    refute_output 'verification failed'
}

@test "a guessed base whose head is another image's is what QEMU takes it for" {
    # The guest of a raw base cannot have written it (guessed-formats.bats); whoever could names a file of the host.
    qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw evil.img 4M
    printf evil.img | named
    local theirs
    theirs=$(qemu-img info -U --backing-chain --output=json a.img | jq -r '.[].format' | tr '\n' ' ')
    run mg -drive file=a.img,if=virtio,format=qcow2,readonly=on -guest profile=none -c 'info chain virtio0'
    [ "$theirs" = "qcow2 qcow2 raw " ]
    assert_output passwd
}
