# SPDX-License-Identifier: GPL-2.0-or-later
#
# Connections: who is served, what a client may do to us, and what it may not.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 disk.img 64M
    export PYTHONPATH=$TOP/tests/qmp PYTHONDONTWRITEBYTECODE=1
}

start() {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 "$@"
}

client() {
    timeout "$MG_TIMEOUT" python3 - "$@" 3>&-
}

@test "requests may come in pieces and several at once" {
    start
    client <<'END'
from client import Client
import time
c = Client()
for byte in b'{"execute": "query-name", "id": 1}':
    c.send(bytes([byte]))
    time.sleep(0.002)
assert c.answer() == {"return": {}, "id": 1}
c.send('{"execute": "query-name", "id": 2}{"execute": "query-name", "id": 3}\n{"execute": "query-na')
assert c.answer()["id"] == 2 and c.answer()["id"] == 3
c.send('me", "id": 4}')
assert c.answer()["id"] == 4
END
}

@test "a second client waits until the first has gone, and negotiates anew" {
    start
    client <<'END'
import select
import socket
from client import Client
first = Client()
second = socket.socket(socket.AF_UNIX)
second.connect("qmp")
assert not select.select([second], [], [], 0.3)[0], "it was served at once"
first.conn.close()
assert select.select([second], [], [], 20)[0]
assert second.recv(10000).startswith(b'{"QMP": {"version": ')
second.sendall(b'{"execute": "query-status"}')
assert b"Expecting capabilities negotiation" in second.recv(10000)
END
}

@test "events go to sessions that have negotiated, and to no others" {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 -qmp unix:qmp2,server=on,wait=off
    client <<'END'
import select
from client import Client
one, two = Client("qmp"), Client("qmp2", negotiate=False)
assert one.ask("cont") == {"return": {}}
assert one.names().split()[-2:] == ["RESUME", "return"]
assert not select.select([two.conn], [], [], 0.2)[0]
two.ask("qmp_capabilities")
one.ask("stop")
two.event("STOP")
END
}

@test "a client that says nothing more is answered before the connection ends" {
    start
    client <<'END'
import socket
from client import Client
c = Client()
c.send('{"execute": "query-status", "id": "last"}')
c.conn.shutdown(socket.SHUT_WR)
assert c.answer()["id"] == "last"
assert c.ended()
END
}

@test "a client that never reads does not hold up the program or other clients" {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 -qmp unix:qmp2,server=on,wait=off
    client <<'END'
import socket
from client import Client
deaf, c = Client("qmp2"), Client("qmp")
deaf.conn.setblocking(False)
try:
    while True:
        deaf.conn.send(b'{"execute": "query-block"}' * 1000)
except BlockingIOError:
    pass
for i in range(50):
    assert "return" in c.ask("query-block")
END
    # What it wrote was not taken either: the program holds a bounded part of it.
    rss=$(awk '/VmRSS/ { print $2 }' "/proc/$(pgrep -P $MG_PID)/status")
    [ "$rss" -lt 60000 ] || fail "$rss KiB"
}

@test "a client that leaves too many events unread is cut off" {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 -qmp unix:qmp2,server=on,wait=off
    client <<'END'
from client import Client
deaf, c = Client("qmp2"), Client("qmp")
for i in range(20000):
    c.send('{"execute": "cont"}{"execute": "stop"}')
    c.answer(), c.answer()
    c.seen.clear()
    if i % 1000 == 0:
        try:
            deaf.conn.send(b" ")
        except BrokenPipeError:
            break
else:
    raise SystemExit("it was kept")
END
}

@test "a client that goes in the midst of a command does no harm" {
    start
    client <<'END'
from client import Client
c = Client()
c.send('{"execute": "human-monitor-command", "arguments": {"command-line": "sleep 30"}}')
c.conn.close()
c = Client()
assert c.ask("query-status")["return"]["status"] == "prelaunch"
END
}

@test "garbage is answered with errors and the session goes on" {
    start
    client <<'END'
import os
from client import Client
import threading
c = Client()
# Answers are many: who does not read them is not read from.
noise = os.urandom(200000) + b'\n"\n]}]}]}\n' + b"[" * 5000 + b"\n" + b"]" * 5000
threading.Thread(target=c.send, args=(noise + b'\n{"execute": "query-name", "id": "after"}',)).start()
while c.answer().get("id") != "after":
    pass
END
}

@test "sockets are for their owner alone and vanish at the end" {
    start
    [ "$(stat -c %a qmp)" = 600 ]
    [ "$(stat -c %a hmp)" = 600 ]
    qmp '{"execute": "quit"}'
    mg_wait
    [ ! -e qmp ]
    [ ! -e hmp ]
}

@test "a socket that a dead program left behind is replaced, one in use is not" {
    start
    kill -9 "$(pgrep -P $MG_PID)"
    mg_wait || true
    [ -S qmp ]
    rm hmp
    start
    qmp '{"execute": "query-status"}'
    run mg -S -drive if=none -monitor none -qmp unix:qmp,server=on,wait=off
    assert_status 1
    assert_output "merganser: -qmp unix:qmp,server=on,wait=off: Failed to bind socket to qmp: Address already in use"
    [ -S qmp ]
}

@test "a file in the place of a socket is left alone" {
    echo precious >qmp
    run mg -S -drive if=none -monitor none -qmp unix:qmp,server=on,wait=off
    assert_status 1
    [ "$(cat qmp)" = precious ]
}

@test "wait=on: the machine starts when the first client has come" {
    timeout "$MG_TIMEOUT" "$MERGANSER" -drive file=disk.img,if=virtio,format=qcow2 -monitor none -qmp unix:qmp,server=on,wait=on \
        2>err </dev/null 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    client <<'END'
from client import Client
c = Client()
assert c.ask("query-status")["return"]["status"] in ("prelaunch", "running")
while c.ask("query-status")["return"]["status"] != "running":
    pass
c.ask("quit")
END
    mg_wait
}

@test "as a client of a socket it is served there, once" {
    client <<'END'
import os
import socket
import subprocess
server = socket.socket(socket.AF_UNIX)
server.bind("there")
server.listen()
server.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
p = subprocess.Popen([os.environ["MERGANSER"], "-S", "-drive", "if=none", "-monitor", "none", "-qmp", "unix:there"])
conn, _ = server.accept()
assert conn.recv(10000).startswith(b'{"QMP": ')
conn.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
assert p.wait(20) == 0
END
}

@test "-qmp stdio: requests on standard input, answers on standard output, and its end ends the program" {
    printf '%s\n' '{"execute": "qmp_capabilities"}' \
        '{"execute": "block-stream", "arguments": {"device": "virtio0"}}' |
        timeout "$MG_TIMEOUT" "$MERGANSER" -drive file=disk.img,if=virtio,format=qcow2 -qmp stdio >out 2>err 3>&-
    [ ! -s err ]
    [ "$(tail -c 2 out | od -An -tx1)" = " 0d 0a" ]
    python3 - <<'END'
import json
lines = [json.loads(line) for line in open("out")]
names = [line.get("event", "") for line in lines]
assert "QMP" in lines[0]
assert "BLOCK_JOB_COMPLETED" in names and names[-1] == "SHUTDOWN", names
END
}

@test "-qmp stdio: a job that has ended and waits to be dismissed is not waited for" {
    printf '%s\n' '{"execute": "qmp_capabilities"}' \
        '{"execute": "block-stream", "arguments": {"device": "virtio0", "auto-dismiss": false}}' |
        timeout 20 "$MERGANSER" -drive file=disk.img,if=virtio,format=qcow2 -qmp stdio >out 2>err 3>&-
    [ ! -s err ]
    grep -q '"status": "concluded"' out
}

@test "a monitor for programs that only writes: the greeting is in the file, and nobody is waited for" {
    run mg -S -drive if=none -chardev file,id=log,path=told -mon chardev=log,mode=control -c 'info status'
    assert_status 0
    [[ $(cat told) == '{"QMP": {'* ]] || fail "$(cat told)"
}

@test "the human monitor on a socket: a prompt, the answer, no echo, no escapes" {
    start
    client <<'END'
import os
import socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("hmp")
text = b""
while not text.endswith(b"(qemu) "):
    text += conn.recv(1000)
conn.sendall(b"info status\r\n\r\nno such command here\ninfo na")
conn.sendall(b"me\n")
while text.count(b"(qemu) ") < 5:
    text += conn.recv(1000)
want = """monitor - type 'help' for more information
(qemu) VM status: paused (prelaunch)
(qemu) (qemu) unknown command: 'no'
"""
assert want in text.decode(), text
assert b"\x1b" not in text and b"\r" not in text
END
}

@test "under --qemu-compat the human monitor on a socket begins as QEMU's does" {
    start --qemu-compat
    client <<'END'
import os
import socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("hmp")
line = b"info status"
# Each character draws the line anew.
echo = b"".join(b"\x1b[D" * i + line[:i + 1] + b"\x1b[K" for i in range(len(line)))
want = (b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) " + echo +
        b"\r\nVM status: paused (prelaunch)\r\n(qemu) ")
conn.sendall(line + b"\n")
text = b""
while len(text) < len(want):
    text += conn.recv(1000)
assert text == want, text
END
}

@test "a thousand clients one after the other leave nothing behind" {
    start
    client "$(pgrep -P $MG_PID)" <<'END'
import os
import sys
from client import Client
fds = "/proc/%s/fd" % sys.argv[1]
Client().conn.close()
before = len(os.listdir(fds))
for i in range(1000):
    c = Client(negotiate=i % 2)
    if i % 3 == 0:
        c.send(b'{"execute": "query-block"}' * 10)
    c.conn.close()
c = Client()
c.ask("query-status")
assert len(os.listdir(fds)) <= before + 1
END
}

@test "a line that was not ended is not run" {
    start
    client <<'END'
import socket
conn = socket.socket(socket.AF_UNIX)
conn.connect("hmp")
conn.sendall(b"cont")
conn.close()
END
    run hmp 'info status'
    assert_output 'VM status: paused (prelaunch)'
}

@test "a command that waits ends when its client goes" {
    start
    client <<'END'
import os
import socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("hmp")
conn.sendall(b"sleep 50\n")
conn.close()
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("hmp")
assert b"monitor - type" in conn.recv(1000)
END
}

@test "what is printed for people is the same JSON, whatever its strings hold" {
    mg_start -S -drive file=disk.img,if=virtio,format=qcow2 -qmp-pretty unix:pretty,server=on,wait=off
    client <<'END'
import os
import json
import socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
conn.connect("pretty")
stream = conn.makefile("r")
def answer():
    text = ""
    while True:
        text += stream.readline()
        try:
            return json.loads(text), text
        except ValueError:
            pass
answer()
for word in ('a "quoted" one', "back\\slash", "\\\"", "brackets [{,:}]", "tab\t"):
    conn.sendall(json.dumps({"execute": "qmp_capabilities", "id": {"x": [word]}}).encode())
    got, text = answer()
    assert got["id"] == {"x": [word]}, text
    assert text.count("\n") > 3, text
END
}
