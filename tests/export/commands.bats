#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The commands of the NBD server answer as QEMU 7.2 does.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a.img 64M
    qemu-img create -q -f qcow2 b.img 64M
    drives=(-drive file=a.img,if=virtio,node-name=na -drive file=b.img,if=none,id=spare,node-name=nb)
}

@test "the human monitor's answers are QEMU's" {
    cat >wanted <<'END'
Error: NBD server not running
Error: NBD server not running
Error: Export 'x' is not found
Error: error parsing address 'foo'
Error: Failed to bind socket to /nonexistent/x: No such file or directory
nbd_server_start: string expected
Try "help nbd_server_start" for more information
Error: -w only valid together with -a
Error: NBD server already running
Error: Cannot find device='nosuch' nor node-name='nosuch'
Error: Permission conflict on node 'na': permissions 'write' are both required by an unnamed block device (uses node 'na' as 'root' child) and unshared by block device 'virtio0' (uses node 'na' as 'root' child).
Error: Block export id 'virtio0' is already in use
nbd_server_add: block device name expected
Try "help nbd_server_add" for more information
nbd_server_remove: string expected
Try "help nbd_server_remove" for more information
Error: Export 'nosuch' is not found
Error: NBD server not running
Error: Permission conflict on node 'na': permissions 'write' are both required by an unnamed block device (uses node 'na' as 'root' child) and unshared by block device 'virtio0' (uses node 'na' as 'root' child).
Error: NBD server not running
nbd_server_start nbd_server_start [-a] [-w] host:port -- serve block devices on the given host and port
nbd_server_add nbd_server_add [-w] device [name] -- export a block device via NBD
nbd_server_remove nbd_server_remove [-f] name -- remove an export previously exposed via NBD
nbd_server_stop nbd_server_stop -- stop serving block devices using the NBD protocol
END
    mg_start --qemu-compat "${drives[@]}"
    hmp nbd_server_stop 'nbd_server_add virtio0' 'nbd_server_remove x' 'nbd_server_start foo' \
        'nbd_server_start unix:/nonexistent/x' nbd_server_start 'nbd_server_start -w unix:s' 'nbd_server_start unix:s' \
        'nbd_server_start unix:s2' 'nbd_server_add nosuch' 'nbd_server_add -w virtio0' 'nbd_server_add virtio0' \
        'nbd_server_add virtio0' 'nbd_server_add virtio0 other' 'nbd_server_add -w spare' 'nbd_server_add -w spare w2' \
        nbd_server_add nbd_server_remove 'nbd_server_remove nosuch' 'nbd_server_remove other' nbd_server_stop \
        nbd_server_stop 'nbd_server_start -a -w unix:s3' 'nbd_server_add spare' 'nbd_server_start -a unix:s3' \
        'nbd_server_add spare foo' 'help nbd_server_start' 'help nbd_server_add' 'help nbd_server_remove' \
        'help nbd_server_stop' >answers
    diff wanted answers
    run timeout -k 5 20 nbdinfo --list --json 'nbd+unix:///?socket=s3'
    [ "$(jq -r '[.exports[]."export-name"] | join(" ")' <<<"$output")" = "virtio0 spare foo" ] || fail "$output"
}

@test "QMP's answers are QEMU's" {
    cat >wanted <<'END'
NBD server not running
[]
Invalid parameter type for 'addr', expected: object
Parameter 'addr.data' is missing
Parameter 'type' does not accept value 'foo'
Parameter 'addr.data.path' is missing
Parameter 'addr.data.bar' is unexpected
No TLS credentials with id 't0'
Parameter 'addr' is missing
{}
NBD server already running
{}
{}
Block export id 'nb' is already in use
Invalid block export id
Bitmap 'b0' is not found
Export 'zz' is not found
{}
Block export id 'e1' is already in use
NBD server already has export named 'foo'
Cannot find device='' nor node-name='nonode'
Invalid block export id
Parameter 'type' does not accept value 'vhost'
[{"node-name":"nb","shutting-down":false,"type":"nbd","id":"e1"},{"node-name":"nb","shutting-down":false,"type":"nbd","id":"nb"},{"node-name":"na","shutting-down":false,"type":"nbd","id":"N"}]
Parameter 'mode' does not accept value 'soft'
{}
{}
[]
END
    unix='"addr":{"type":"unix","data":{"path":"s"}}'
    mg_start "${drives[@]}"
    command() { echo "{\"execute\":\"$1\",\"arguments\":{$2}}"; }
    qmp "$(command nbd-server-add '"device":"virtio0"')" "$(command query-block-exports)" \
        "$(command nbd-server-start '"addr":"x"')" "$(command nbd-server-start '"addr":{"type":"unix"}')" \
        "$(command nbd-server-start '"addr":{"type":"foo","data":{"path":"s"}}')" \
        "$(command nbd-server-start '"addr":{"type":"unix","data":{}}')" \
        "$(command nbd-server-start '"addr":{"type":"unix","data":{"path":"s","bar":1}}')" \
        "$(command nbd-server-start "$unix,\"tls-creds\":\"t0\"")" "$(command nbd-server-start)" \
        "$(command nbd-server-start "$unix,\"max-connections\":3")" "$(command nbd-server-start "$unix")" \
        "$(command nbd-server-add '"device":"na","name":"N","description":"hi there"')" \
        "$(command nbd-server-add '"device":"nb","writable":true')" "$(command nbd-server-add '"device":"nb"')" \
        "$(command nbd-server-add '"device":"nb","name":""')" \
        "$(command nbd-server-add '"device":"nb","name":"b1","bitmap":"b0"')" \
        "$(command nbd-server-remove '"name":"zz"')" \
        "$(command block-export-add '"type":"nbd","id":"e1","node-name":"nb","name":"foo"')" \
        "$(command block-export-add '"type":"nbd","id":"e1","node-name":"nb","name":"foo"')" \
        "$(command block-export-add '"type":"nbd","id":"e2","node-name":"nb","name":"foo"')" \
        "$(command block-export-add '"type":"nbd","id":"e3","node-name":"nonode","name":"foo"')" \
        "$(command block-export-add '"type":"nbd","id":"e 3","node-name":"nb","name":"foo3"')" \
        "$(command block-export-add '"type":"vhost","id":"e4","node-name":"nb"')" \
        "$(command query-block-exports)" "$(command nbd-server-remove '"name":"nb","mode":"soft"')" \
        "$(command block-export-del '"id":"e1","mode":"hard"')" "$(command nbd-server-stop)" \
        "$(command query-block-exports)" >answers
    jq -c 'select(.event | not) | if .error then .error.desc else .return end' -r <answers >texts
    diff wanted texts
    run jq -r 'select(.event == "BLOCK_EXPORT_DELETED") | .data.id' answers
    [ "$(echo $output)" = "e1 nb N" ] || [ "$(echo $output)" = "e1 N nb" ] || fail "$output"
}

@test "an export in use goes only by force, and its client is told" {
    mg_start "${drives[@]}"
    hmp 'nbd_server_start unix:s' 'nbd_server_add spare'
    python3 - <<'END'
import os
import socket, struct, subprocess
s = socket.socket(socket.AF_UNIX)
s.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
s.connect("s")
f = s.makefile("rwb")
f.read(18)
f.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 5) + b"spare")
f.flush()
assert len(f.read(10)) == 10
def hmp(line):
    return subprocess.run(["bash", "-c", 'source "$TOP/tests/lib.bash"; hmp "$1"', "hmp", line], text=True,
                          capture_output=True).stdout
answer = hmp("nbd_server_remove spare")
assert answer.startswith("Error: export 'spare' still in use"), answer
assert hmp("nbd_server_remove -f spare") == ""
assert f.read() == b""
END
    hmp nbd_server_stop
}

@test "the program ends though clients are connected and do not read" {
    mg_start "${drives[@]}"
    hmp 'nbd_server_start -a unix:s'
    python3 - 3>&- <<'END' &
import socket, struct, time
s = socket.socket(socket.AF_UNIX)
s.connect("s")
f = s.makefile("rwb")
f.read(18)
f.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 5) + b"spare")
for i in range(100):
    f.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, 0, 1 << 20))
f.flush()
open("ready", "w").close()
time.sleep(30)
END
    local client=$!
    for _ in $(seq 100); do
        [ -e ready ] && break
        sleep 0.05
    done
    hmp quit
    mg_wait
    kill $client
}

@test "a socket that a dead program left is replaced, one in use is not" {
    mg_start "${drives[@]}"
    hmp 'nbd_server_start unix:s'
    kill -9 "$(pgrep -P "$MG_PID")"
    mg_wait || true
    [ -S s ]
    mg_start "${drives[@]}"
    run hmp 'nbd_server_start unix:s' nbd_server_stop
    [ -z "$output" ] || fail "$output"
    run hmp 'nbd_server_start unix:hmp'
    assert_output "Error: Failed to bind socket to hmp: Address already in use"
    echo precious >file
    run hmp 'nbd_server_start unix:file'
    assert_output "Address already in use"
    [ "$(cat file)" = precious ]
}

@test "NBD over TCP is refused in one sentence" {
    run mg -S -c 'nbd_server_start localhost:10809'
    assert_status 3
    assert_output "Error: 'localhost:10809': NBD over TCP is not supported by merganser"
}

@test "what is exported and ejected is exported no more" {
    qemu-img create -q -f raw disc.iso 1M
    run mg -cdrom disc.iso -guest profile=none -c 'nbd_server_start unix:s' -c 'nbd_server_add ide1-cd0' \
        -c 'eject ide1-cd0' -c '!nbd_server_remove ide1-cd0' -c nbd_server_stop
    assert_status 0
    assert_output "Export 'ide1-cd0' is not found"
}

@test "an export of a drive goes when its device goes, one of a node goes on" {
    qemu-io -f qcow2 -c 'write -q -P 7 0 1M' a.img
    mg_start -drive file=b.img,if=none,id=spare -blockdev driver=qcow2,node-name=na,file.driver=file,file.filename=a.img
    hmp 'device_add virtio-blk,drive=spare,id=x' 'device_add virtio-blk,drive=na,id=y' 'nbd_server_start unix:s' \
        'nbd_server_add spare' 'nbd_server_add na' 'device_del x' 'device_del y'
    for _ in {1..100}; do
        run timeout -k 5 20 nbdinfo --list --json 'nbd+unix:///?socket=s'
        [ "$(jq -r '[.exports[]."export-name"] | join(" ")' <<<"$output")" != na ] || break
        sleep 0.02
    done
    run hmp 'info block'
    [ -z "$output" ] || fail "$output"
    timeout -k 5 20 qemu-io -r -f raw -c 'read -P 7 0 1M' 'nbd+unix:///na?socket=s'
    run timeout -k 5 20 nbdinfo --list --json 'nbd+unix:///?socket=s'
    [ "$(jq -r '[.exports[]."export-name"] | join(" ")' <<<"$output")" = na ] || fail "$output"
    hmp quit
    mg_wait
}
