#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Who speaks to the human monitor may be anybody: lines of any length, any bytes, in pieces, and clients that never say or hear
# anything. The others go on, and memory stays bounded.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 disk.img 1M
    DRIVE=file=disk.img,if=virtio,format=qcow2,node-name=disk
}

# client <<STEPS: Python with talk(bytes): send them to the monitor; what came up to the next prompt.
client() {
    cat >steps.py
    timeout -k 2 60 python3 - 3>&- <<'END'
import os
import socket

PROMPT = b"(qemu) "


def connect(path="hmp"):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
    conn.connect(path)
    return conn


def until(conn, end):
    data = b""
    while not data.endswith(end):
        piece = conn.recv(1 << 20)
        if not piece:
            raise SystemExit("the connection ended behind %r" % data[-200:])
        data += piece
    return data


def talk(conn, data):
    conn.sendall(data)
    return until(conn, PROMPT)


exec(open("steps.py").read())
END
}

# shows_only FILE: nothing in it that a terminal would obey.
shows_only() {
    ! LC_ALL=C grep -nP '[\x00-\x08\x0b-\x1f\x7f-\xff]' "$1" >&2 || fail "control bytes in $1"
}

@test "a script's control bytes are shown, not obeyed" {
    printf -- '-bogus \033]0;evil\007 \033[2J \177 \233 \377\n-info \r\001block\nbogus \033\n' >script
    run mg -drive $DRIVE -f script
    assert_status 3
    printf '%s\n' "$output" >out
    shows_only out
    assert_output '\x1b]0;evil\x07 \x1b[2J \x7f \x9b \xff'
    assert_output 'stopped here: bogus \x1b'
}

@test "a client's control bytes are shown, not obeyed" {
    mg_start -S -drive $DRIVE
    client <<'END'
conn = connect()
until(conn, PROMPT)
answer = talk(conn, b"bogus\x1b]0;evil\x07\x9b2J\xff\n")
assert rb"\x1b]0;evil\x07\x9b2J\xff" in answer, answer
assert all(byte == 10 or 32 <= byte < 127 for byte in answer), answer
END
}

@test "an image's backing name cannot write on the terminal" {
    local base
    base=$(printf 'b\033[2Jase.img')
    qemu-img create -q -f qcow2 "$base" 1M
    qemu-img create -q -f qcow2 -b "$base" -F qcow2 top.img
    mg -drive file=top.img,if=virtio,format=qcow2 -c 'info block -v' -c 'info chain' >out 2>&1
    grep -qF 'b\x1b[2Jase.img' out
    shows_only out
    rm "$base"
    # Whoever names it: an error of either program writes it out, too.
    run mg -drive file=top.img,if=virtio,format=qcow2 -c quit
    assert_status 1
    assert_output 'b\x1b[2Jase.img'
    printf '%s\n' "$output" >out
    shows_only out
    run "$BUILD_DIR/merganser-img" map top.img
    assert_status 1
    assert_output 'b\x1b[2Jase.img'
    printf '%s\n' "$output" >out
    shows_only out
}

@test "a line of a MiB is taken, one byte more is refused" {
    mg_start -S -drive $DRIVE
    client <<'END'
conn = connect()
until(conn, PROMPT)
line = b"info status" + b" " * ((1 << 20) - 11)
assert b"VM status: paused" in talk(conn, line + b"\n")
assert b"a line of more than 1048576 bytes is no command" in talk(conn, line + b" \n")
assert b"VM status: paused" in talk(conn, b"info status\n")
END
    [ "$(rss_kib)" -lt 60000 ]
}

@test "a script's line of a MiB is taken, one byte more is no script" {
    { printf 'info status'; head -c $(((1 << 20) - 11)) /dev/zero | tr '\0' ' '; echo; echo 'info name'; } >script
    run mg -S -drive $DRIVE -f script
    assert_status 0
    assert_output "VM status: paused"
    { printf 'info status'; head -c $(((1 << 20) - 10)) /dev/zero | tr '\0' ' '; echo; } >script
    run mg -S -drive $DRIVE -f script
    assert_status 1
    [ "$output" = "merganser: -f script: 'script' is no script: line 1 is too long for a command" ]
}

@test "bytes of all kinds, NUL among them, end no session" {
    mg_start -S -drive $DRIVE
    client <<'END'
import random, threading
conn = connect()
until(conn, PROMPT)
noise = bytes(random.Random(7).randrange(256) for i in range(200000)).replace(b"q", b"x")
threading.Thread(target=conn.sendall, args=(noise + b"\ninfo na\0me\ninfo status\nthe-end\n",)).start()
data = b""
while b"'the-end'" not in data:
    piece = conn.recv(1 << 20)
    assert piece, "the connection ended"
    data = data[-10000:] + piece
assert b"VM status: paused" in data
END
}

@test "a line may come byte by byte, and ten lines at once" {
    mg_start -S -drive $DRIVE
    client <<'END'
conn = connect()
until(conn, PROMPT)
for byte in b"info status":
    conn.sendall(bytes([byte]))
assert b"VM status: paused" in talk(conn, b"\n")
conn.sendall(b"info status\n" * 10 + b"bogus\n")
assert until(conn, b"for a list.\n(qemu) ").count(b"VM status: paused") == 10
END
}

@test "hundreds of clients that say nothing, or half a line, do not hold up the one that speaks" {
    # The host's own limit is lower on old kernels.
    local n=$(($(cat /proc/sys/net/core/somaxconn) < 300 ? 100 : 300))
    mg_start -S -drive $DRIVE
    client <<<'conn = connect(); until(conn, PROMPT)'
    before=$(rss_kib)
    client <<END
conn = connect()
until(conn, PROMPT)
idle = []
for i in range($n):
    other = socket.socket(socket.AF_UNIX)
    other.setblocking(False)
    other.connect("hmp")
    other.send(b"quit" if i % 2 else b"")
    idle.append(other)
for i in range(20):
    assert b"VM status: paused" in talk(conn, b"info status\n")
# They have their turn one after the other, and leave; half a line is not run.
conn.close()
idle[0].settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
data = idle[0].recv(100)
assert data, "the first of them is served"
for other in idle:
    other.close()
conn = connect()
until(conn, PROMPT)
assert b"VM status: paused" in talk(conn, b"info status\n")
END
    [ $(($(rss_kib) - before)) -lt 4096 ]
}

@test "a client that never reads holds up itself alone" {
    mg_start -drive $DRIVE -monitor unix:hmp2,server=on,wait=off
    client <<'END'
deaf = connect("hmp2")
deaf.setblocking(False)
try:
    while True:
        deaf.send(b"help\n" * 1000)
except BlockingIOError:
    pass
conn = connect()
until(conn, PROMPT)
for i in range(20):
    assert b"VM status: running" in talk(conn, b"info status\n")
END
    [ "$(rss_kib)" -lt 60000 ]
}
