#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a QMP client may send: JSON of any depth and size, bad UTF-8, NUL, frames split and joined anywhere; and clients by the
# hundred. Each answer is an error or a result, the session goes on, and memory stays bounded.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 disk.img 1M
    export PYTHONPATH=$TOP/tests/qmp PYTHONDONTWRITEBYTECODE=1
}

start() {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 "$@"
}

client() {
    timeout -k 2 60 python3 - "$@" 3>&-
}

@test "nesting is taken to a limit, refused beyond it, and never recursed into" {
    start
    client <<'END'
import threading
from client import Client
c = Client()
def deep(levels):
    # The request and its arguments are two levels.
    c.send(b'{"execute": "query-name", "arguments": {"x": ' + b"[" * (levels - 2) + b"]" * (levels - 2) + b"}}\n")
    return c.answer()["error"]["desc"]
assert deep(256) == "Parameter 'x' is unexpected", "a deep one is read"
assert deep(257) == "JSON nesting depth limit exceeded"
# Who does not read the errors is not read from either.
tail = b"\n" + b"]" * 300 + b'\n{"execute": "query-name", "id": "after"}\n'
threading.Thread(target=c.send, args=(b"[" * 500000 + tail,), daemon=True).start()
while c.answer().get("id") != "after":
    pass
END
    [ "$(rss_kib)" -lt 100000 ]
}

@test "a string of 8 MiB is read, one without an end is refused" {
    start
    client <<'END'
from client import Client
c = Client()
c.send(b'{"execute": "query-name", "id": "' + b"a" * (8 << 20) + b'"}\n')
assert len(c.answer()["id"]) == 8 << 20
c.send(b'{"execute": "query-name", "id": "')
import threading
def endless():
    try:
        for i in range(80):
            c.send(b"a" * (1 << 20))
        c.send(b'"}\n{"execute": "query-name", "id": "after"}\n')
    except BrokenPipeError:
        pass
threading.Thread(target=endless).start()
assert "error" in c.answer()
while c.answer().get("id") != "after":
    pass
END
    [ "$(rss_kib)" -lt 200000 ]
}

@test "bad UTF-8, NUL and broken escapes are errors of one request each" {
    start
    client <<'END'
from client import Client
c = Client()
bad = [b'"\xff"', b'"\xc3("', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xc1\x9b"', b'"\\ud800"', b'"\\u12"', b'"\\x41"', b'"a\0b"',
       b'"\x01"', b'0123', b'nul', b'\0']
for value in bad:
    c.send(b'{"execute": "query-name", "arguments": {"x": ' + value + b'}}\n')
    # One error or several: after any of them the session can be brought back into step.
    c.send(b'"\n]}]}\n{"execute": "query-status", "id": "next"}\n')
    while True:
        answer = c.answer()
        if answer.get("id") == "next":
            assert answer["return"]["status"] == "prelaunch", value
            break
        assert "is unexpected" not in answer["error"]["desc"], (value, answer) # then it was taken
for value in (b'1e99999999', b'"\\u0000"'): # odd, and taken as QEMU does
    c.send(b'{"execute": "query-name", "arguments": {"x": ' + value + b'}}\n')
    assert "is unexpected" in c.answer()["error"]["desc"], value
END
}

@test "control bytes of a request come back as escapes" {
    start
    client <<'END'
from client import Client
c = Client()
c.send(b'{"execute": "\\u001b[2J\\u009b\\u0007"}\n')
line = c.line()
assert "\\u001B[2J\\u009B\\u0007" in line, line
assert all(32 <= ord(ch) < 127 for ch in line), line
c.send(b'{"execute": "human-monitor-command", "arguments": {"command-line": "\\u001b[2J"}}\n')
line = c.line()
assert all(32 <= ord(ch) < 127 for ch in line), line
assert "\\\\x1b[2J" in line, line
END
}

@test "requests may be cut anywhere" {
    start
    client <<'END'
from client import Client
import socket
c = Client()
c.conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
request = '{"execute": "query-name", "id": "\u00fc\\u00fc\\n"}\n'.encode()
for cut in range(1, len(request)):
    c.send(request[:cut])
    c.send(request[cut:] + request[:cut])
    c.send(request[cut:])
    for i in range(2):
        assert c.answer() == {"return": {}, "id": "\u00fc\u00fc\n"}, cut
END
}

@test "hundreds of clients that say nothing, or half a request, do not hold up the one that speaks" {
    # The host's own limit is lower on old kernels.
    local n=$(($(cat /proc/sys/net/core/somaxconn) < 300 ? 100 : 300))
    start
    client <<<'from client import Client; Client().ask("query-status")'
    before=$(rss_kib)
    client <<END
from client import Client
import os
import socket
c = Client()
idle = []
for i in range($n):
    other = socket.socket(socket.AF_UNIX)
    other.setblocking(False)
    other.connect("qmp")
    other.send(b'{"execute": "quit"' if i % 2 else b"")
    idle.append(other)
for i in range(20):
    assert "return" in c.ask("query-status")
# They have their turn one after the other, and leave; half a request is not run.
c.conn.close()
idle[0].setblocking(True)
idle[0].settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
assert b"QMP" in idle[0].recv(1000), "the first of them is served"
for other in idle:
    other.close()
c = Client()
assert "return" in c.ask("query-status")
END
    [ $(($(rss_kib) - before)) -lt 4096 ]
}

@test "a client that never reads its events is cut off, and nobody waits for it" {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 -qmp unix:deaf,server=on,wait=off
    client <<'END'
import os
from client import Client
import socket
deaf = socket.socket(socket.AF_UNIX)
deaf.connect("deaf")
deaf.send(b'{"execute": "qmp_capabilities"}\n')
c = Client()
for i in range(90): # events of one and a half MiB
    c.send(b'{"execute": "cont"}{"execute": "stop"}\n' * 100)
    for k in range(200):
        assert c.answer() == {"return": {}}
deaf.settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
heard = 0
while True:
    part = deaf.recv(1 << 20)
    if not part:
        break
    heard += len(part)
assert (1 << 10) < heard < (2 << 20), heard
assert "return" in c.ask("query-status")
END
}
