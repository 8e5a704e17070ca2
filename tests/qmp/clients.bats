# SPDX-License-Identifier: GPL-2.0-or-later
#
# Programs that were written for QEMU: they speak as those of QEMU's own tree do, and know nothing of us.

load ../lib.bash

setup() {
    common_setup
    make_chain A.img B.img
    mg_start -S -drive file=B.img,if=virtio,format=qcow2,node-name=B,backing.node-name=A
}

@test "a client like QEMU's scripts: no line ends behind requests, a file of lines to read from, events in between" {
    timeout 60 python3 - 3>&- <<'PY'
import json
import socket
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect("qmp")
lines = sock.makefile()
events = []
def read():
    while True:
        message = json.loads(lines.readline())
        if "event" not in message:
            return message
        events.append(message)
def cmd(name, arguments=None, ident=None):
    request = {"execute": name}
    if arguments:
        request["arguments"] = arguments
    if ident:
        request["id"] = ident
    sock.sendall(json.dumps(request).encode("utf-8"))
    answer = read()
    assert answer.get("id") == ident, answer
    return answer
greeting = read()["QMP"]
assert greeting["version"]["qemu"]["major"] == 7 and "capabilities" in greeting
assert cmd("qmp_capabilities") == {"return": {}}
names = [command["name"] for command in cmd("query-commands")["return"]]
assert "block-stream" in names and "job-dismiss" in names
assert cmd("block-stream", {"device": "virtio0", "job-id": "job0"}, "my-id") == {"return": {}, "id": "my-id"}
while not any(event["event"] == "BLOCK_JOB_COMPLETED" for event in events):
    events.append(json.loads(lines.readline()))
assert all(set(event["timestamp"]) == {"seconds", "microseconds"} for event in events)
assert cmd("quit") == {"return": {}}
PY
    mg_wait
    assert_chain B.img B.img
}

@test "a client that wants out-of-band execution, names all its requests and sends several at once" {
    timeout 60 python3 - 3>&- <<'PY'
import json
import socket
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect("qmp")
lines = sock.makefile()
wants = [cap for cap in json.loads(lines.readline())["QMP"]["capabilities"] if cap == "oob"]
assert wants == ["oob"]
def send(execute, ident, verb="execute", **arguments):
    sock.sendall(json.dumps({verb: execute, "arguments": arguments, "id": ident}).encode() + b"\n")
send("qmp_capabilities", "__qmp#00001", enable=wants)
assert json.loads(lines.readline()) == {"return": {}, "id": "__qmp#00001"}
for i in range(20):
    send(("query-status", "query-block-jobs", "query-jobs", "nosuch")[i % 4], i)
send("query-status", "late", verb="exec-oob")
answers = [json.loads(lines.readline()) for i in range(21)]
assert [a["id"] for a in answers if a["id"] != "late"] == list(range(20)), answers
assert all(("error" in a) == (a["id"] == "late" or a["id"] % 4 == 3) for a in answers), answers
late = next(a for a in answers if a["id"] == "late")
assert late["error"]["desc"] == "The command query-status does not support OOB", late
PY
}
