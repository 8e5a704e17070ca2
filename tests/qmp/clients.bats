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
    timeout "$MG_TIMEOUT" python3 - 3>&- <<'PY'
import os
import json
import socket
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
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
    timeout "$MG_TIMEOUT" python3 - 3>&- <<'PY'
import os
import json
import socket
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
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

@test "a client of coroutines: a reader that sorts answers by id from events, several tasks that ask meanwhile" {
    timeout "$MG_TIMEOUT" python3 - 3>&- <<'PY'
import asyncio
import json


class Client:
    async def connect(self, path):
        self.reader, self.writer = await asyncio.open_unix_connection(path, limit=1 << 24)
        self.greeting = json.loads(await self.reader.readline())["QMP"]
        self.waiting, self.events, self.number = {}, asyncio.Queue(), 0
        self.task = asyncio.create_task(self.read())
        await self.execute("qmp_capabilities")

    async def read(self):
        while line := await self.reader.readline():
            message = json.loads(line)
            if "event" in message:
                await self.events.put(message)
            else:
                self.waiting.pop(message["id"]).set_result(message)

    async def execute(self, command, **arguments):
        self.number += 1
        ident = f"task#{self.number}"
        self.waiting[ident] = asyncio.get_running_loop().create_future()
        self.writer.write(json.dumps({"execute": command, "arguments": arguments, "id": ident}).encode())
        await self.writer.drain()
        answer = await asyncio.wait_for(self.waiting[ident], 20)
        assert "error" not in answer, answer
        return answer["return"]

    async def event(self, name):
        while (event := await asyncio.wait_for(self.events.get(), 20))["event"] != name:
            pass
        return event["data"]


async def merge(client):
    await client.execute("block-stream", **{"device": "virtio0", "job-id": "job", "speed": 4 << 20, "auto-dismiss": False})
    await client.event("BLOCK_JOB_COMPLETED")
    jobs = await client.execute("query-jobs")
    assert jobs[0]["status"] == "concluded" and "error" not in jobs[0], jobs
    await client.execute("job-dismiss", id="job")


async def watch(client):
    for _ in range(200):
        devices, jobs, status = await asyncio.gather(client.execute("query-block"), client.execute("query-block-jobs"),
                                                     client.execute("query-status"))
        assert devices[0]["device"] == "virtio0" and len(jobs) <= 1 and not status["running"]


async def main():
    client = Client()
    await client.connect("qmp")
    await asyncio.gather(merge(client), watch(client), watch(client))
    assert "backing_file" not in (await client.execute("query-block"))[0]["inserted"]
    await client.execute("quit")
    assert await client.event("SHUTDOWN") == {"guest": False, "reason": "host-qmp-quit"}
    await asyncio.wait_for(client.task, 20)


asyncio.run(main())
PY
    mg_wait
    assert_chain B.img B.img
}

@test "labgrid's QEMU driver starts it with its own command line, speaks QMP on its standard input, and ends it" {
    # Debian's package belongs to Debian's Python.
    cat >env.yaml <<END
targets:
  main:
    drivers:
      QEMUDriver: { qemu_bin: qemu, machine: pc, cpu: qemu64, memory: 64M, disk: disk, extra_args: '' }
tools:
  qemu: $MERGANSER
images:
  disk: driver.qcow2
END
    qemu-img create -q -f qcow2 driver.qcow2 4M
    timeout -k 2 60 /usr/bin/python3 - 3>&- <<'PY'
from labgrid import Environment
target = Environment("env.yaml").get_target("main")
driver = target.get_driver("QEMUDriver")
target.activate(driver)
driver.on()
assert driver.monitor_command("query-status")["status"] == "running"
block, = driver.monitor_command("query-block")
assert block["device"] == "virtio0" and block["inserted"]["drv"] == "qcow2", block
assert driver.monitor_command("stop") == {}
assert driver.monitor_command("query-status")["status"] == "paused"
driver.cycle()
assert driver.monitor_command("query-status")["status"] == "running"
driver.off()  # (fails unless the exit code is 0)
target.deactivate(driver)
PY
    assert_clean driver.qcow2
}

@test "a program that starts it for its QMP leaves standard input empty, as it may with QEMU" {
    mg_stop
    rm -f qmp
    # (no -monitor: QEMU has none on its standard input then)
    timeout -k 2 30 "$MERGANSER" -display none -drive file=B.img,if=virtio,format=qcow2 -qmp unix:qmp,server=on,wait=off \
        </dev/null >out 2>&1 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    sleep 0.3
    run qmp '{"execute":"query-status"}' '{"execute":"quit"}'
    assert_status 0
    assert_output '"status": "running"'
    mg_wait
}
