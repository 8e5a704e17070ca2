# SPDX-License-Identifier: GPL-2.0-or-later
#
# Where monitors live: TCP, telnet, files, named places, several at once; the program as a process.

load ../lib.bash

# begin ARGS...: in the background, until the socket `qmp` is there.
begin() {
    timeout 60 "$MERGANSER" -drive if=none -qmp unix:qmp,server=on,wait=off "$@" </dev/null >out 2>err 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || return 0; sleep 0.05; done
    cat err >&2
    return 1
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# talk PORT BYTES SECONDS: send Python's bytes, print what comes back within that time, as Python's bytes.
talk() {
    python3 - "$@" 3>&- <<'END'
import ast
import socket
import sys
import time

conn = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
conn.send(ast.literal_eval(sys.argv[2]))
conn.settimeout(0.1)
data, end = b"", time.monotonic() + 20
want = ast.literal_eval(sys.argv[3])
while time.monotonic() < end and want not in data:
    try:
        data += conn.recv(4096)
    except TimeoutError:
        pass
print(data)
END
}

@test "TCP listens on this machine alone, unless an address is given" {
    port=$(free_port)
    begin -monitor tcp::"$port",server=on,wait=off
    run talk "$port" 'b"info status\n"' 'b"running"'
    assert_output 'VM status: running'
    [ "$(awk -v p="$(printf '%04X' "$port")" '$2 ~ ":" p "$" && $4 == "0A" { print $2 }' /proc/net/tcp)" = "0100007F:$(printf '%04X' "$port")" ]
    ! awk -v p="$(printf '%04X' "$port")" '$2 ~ ":" p "$" && $4 == "0A" { found = 1 } END { exit !found }' /proc/net/tcp6
    mg_stop
}

@test "telnet: options are negotiated, typing is echoed and edited, commands run" {
    port=$(free_port)
    begin -monitor telnet:127.0.0.1:"$port",server,nowait
    # DO ECHO and DO SUPPRESS GO AHEAD are on already and get no answer; WILL TERMINAL TYPE is refused; a
    # subnegotiation is passed over.
    run talk "$port" 'b"\xff\xfd\x01\xff\xfd\x03\xff\xfb\x18\xff\xfa\x18\x00xx\xff\xf0inxx\x7f\x7ffo statsu\x08\x08us\r\n"' 'b"running\r\n"'
    assert_output '\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00'
    assert_output '\xff\xfe\x18'
    assert_output '(qemu) '
    assert_output 'inxx\x08 \x08\x08 \x08fo stat'
    assert_output '\r\nVM status: running\r\n'
    run talk "$port" 'b"\xff\xf6"' 'b"Yes"'
    assert_output '[Yes]'
    run talk "$port" 'b"nonsense\x15\xff\xfd\x22info name\x00\r\n"' 'b"\xff\xfc\x22"'
    assert_output '\xff\xfc"'
    refute_output 'unknown command'
    mg_stop
}

@test "a byte 255 of the text is doubled both ways" {
    port=$(free_port)
    begin -monitor telnet:127.0.0.1:"$port",server,nowait --qemu-compat
    run talk "$port" 'b"x\xff\xff\r\n"' 'b"unknown command"'
    assert_output '(qemu) x\xff\xff\r\n'
    mg_stop
}

@test "named places: -chardev with -mon, before or after, for people and programs" {
    begin -mon chardev=c,mode=control,pretty=on -chardev socket,id=c,path=other,server=on,wait=off \
        -chardev file,id=log,path=log -mon log -chardev null,id=z -mon z
    printf '{"execute":"qmp_capabilities"}' | timeout 20 socat -t 2 - UNIX-CONNECT:other >answer
    [ "$(tail -n 4 answer | tr -d '\r')" = '{
    "return": {
    }
}' ]
    grep -q '(qemu)' log
    mg_stop
}

@test "two servers on one port: the second is refused" {
    port=$(free_port)
    begin -monitor tcp::"$port",server,nowait
    run mg -drive if=none -monitor tcp::"$port",server,nowait
    assert_status 1
    assert_output 'Failed to find an available port: Address already in use'
    mg_stop
}

@test "-daemonize: the caller gets its prompt back when all is open; -pidfile says who; a signal ends it" {
    run timeout -k 2 20 "$MERGANSER" -drive if=none -daemonize -pidfile pid -qmp unix:qmp,server=on,wait=off -D messages
    assert_status 0
    pid=$(cat pid)
    kill -0 "$pid"
    run qmp '{"execute":"query-status"}'
    assert_output '"running": true'
    [ "$(ps -o tty= -p "$pid" | tr -d ' ')" = '?' ]
    kill "$pid"
    for ((i = 0; i < 200; i++)); do [ -e pid ] || break; sleep 0.05; done
    [ ! -e pid ]
    grep -q 'terminating on signal 15' messages
}

@test "-daemonize: what cannot start says so, and the caller hears of it" {
    run timeout -k 2 20 "$MERGANSER" -daemonize -drive file=nosuch
    assert_status 1
    assert_output "Could not open 'nosuch'"
}

@test "a second program with the same -pidfile is refused" {
    begin -monitor none -pidfile pid
    run mg -drive if=none -pidfile pid
    assert_status 1
    assert_output "cannot create PID file: Failed to lock 'pid'"
    mg_stop
}

@test "-readconfig: groups become options" {
    qemu-img create -q -f qcow2 a,b.qcow2 1M
    printf '# a comment\n[drive "d1"]\n  if = "none"\n  file = "a,b.qcow2"\n\n[device "v1"]\n  driver = "virtio-blk"\n  drive = "d1"\n[name]\n  guest = "somebody"\n' >cfg
    run mg -readconfig cfg -S -c 'info block' -c 'info name'
    assert_status 0
    assert_output 'a,b.qcow2 (qcow2)'
    assert_output '/machine/peripheral/v1/virtio-backend'
    assert_output somebody
}

@test "-msg timestamp=on: the time stands before messages" {
    run mg -msg timestamp=on -drive file=nosuch
    assert_status 1
    [[ $output =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z\ merganser:\ -drive\ file=nosuch: ]]
}
