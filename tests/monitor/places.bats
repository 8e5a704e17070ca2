#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# `info chardev`: the places where monitors live, and those where nobody does.

load ../lib.bash

@test "each kind of place has its name" {
    run mg -S -chardev null,id=n0 -chardev file,id=f,path=out -chardev socket,id=u,path=sock,server=on,wait=off -c 'info chardev'
    assert_status 0
    assert_output "n0: filename=null"
    assert_output "f: filename=file"
    assert_output "u: filename=disconnected:unix:sock,server=on"
    run timeout -k 5 20 "$MERGANSER" -S -qmp stdio < <(echo '{"execute":"qmp_capabilities"}{"execute":"human-monitor-command","arguments":{"command-line":"info chardev"}}')
    assert_output "compat_monitor0: filename=stdio"

}

@test "as a client of somebody's socket a place has that one's name" {
    python3 - 3>&- <<'END' &
import socket, time
here = socket.socket(socket.AF_UNIX)
here.bind("there")
here.listen(1)
net = socket.socket()
net.bind(("127.0.0.1", 0))
net.listen(1)
open("port.new", "w").write(str(net.getsockname()[1]))
import os
os.rename("port.new", "port")
kept = [here.accept(), net.accept()]
for conn, _ in kept:
    conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 6)
    try:
        while conn.recv(4096):
            pass
    except OSError:
        pass
END
    local server=$! i
    for ((i = 0; i < 100; i++)); do [ -e port ] && break; sleep 0.05; done
    mg_start -S -chardev socket,id=c,path=there -mon chardev=c -chardev socket,id=t,host=127.0.0.1,port="$(cat port)" -mon chardev=t,mode=control
    run hmp 'info chardev'
    assert_output "c: filename=unix:there"
    assert_output "t: filename=tcp:127.0.0.1:$(cat port)"
    hmp quit
    mg_wait
    wait $server
}

@test "what is said to a place where nobody listens is swallowed" {
    mg_start -S -chardev socket,id=idle,path=idle,server=on,wait=off
    run hmp 'info chardev'
    assert_output "idle: filename=disconnected:unix:idle,server=on"
    python3 - 3>&- <<'END'
import os
import socket
conn = socket.socket(socket.AF_UNIX)
conn.connect("idle")
conn.sendall(b"info status\n" * 1000)
human = socket.socket(socket.AF_UNIX)
human.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
human.connect("hmp")
text = ""
while "idle: filename=unix:idle,server=on" not in text:
    human.sendall(b"info chardev\n")
    text += human.recv(65536).decode()
conn.settimeout(0.3)
try:
    raise SystemExit("it answers: %r" % conn.recv(100))
except TimeoutError:
    pass
END
}

@test "a socket without a path is refused" {
    run mg -S -chardev socket,id=x,path=,server=on,wait=off
    assert_status 1
    assert_output "chardev: socket: no path given"
}

@test "telnet for programs, and for people line by line" {
    run mg -S -chardev socket,id=t,host=127.0.0.1,port=0,server=on,wait=off,telnet=on -mon chardev=t,mode=control \
        -monitor telnet:127.0.0.1:0,server=on,wait=off -c 'info chardev' -c quit
    assert_status 0
    assert_output "t: filename=disconnected:telnet:127.0.0.1:"
    assert_output "compat_monitor0: filename=disconnected:telnet:127.0.0.1:"
}
