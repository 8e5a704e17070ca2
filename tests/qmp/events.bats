# SPDX-License-Identifier: GPL-2.0-or-later
#
# Events: which, with what in them, and in what order among the answers.

load ../lib.bash

setup() {
    common_setup
    make_chain A.img B.img C.img
    export PYTHONPATH=$TOP/tests/qmp PYTHONDONTWRITEBYTECODE=1
}

start() {
    mg_start -drive "file=C.img,if=virtio,format=qcow2,node-name=C,backing.node-name=B,backing.backing.node-name=A" "$@"
}

client() {
    timeout "$MG_TIMEOUT" python3 - "$@" 3>&-
}

@test "a stream tells all its states, and its answer comes before its end" {
    start -S
    client <<'END'
from client import Client
c = Client()
c.seen.clear()
c.ask("block-stream", device="virtio0", base_node="A")
while "null" not in c.names():
    c.take()
assert c.names() == "created running return waiting pending BLOCK_JOB_COMPLETED concluded null", c.names()
done = c.event("BLOCK_JOB_COMPLETED")["data"]
assert done == {"device": "virtio0", "len": 67108864, "offset": 67108864, "speed": 0, "type": "stream"}, done
END
}

@test "what a job does at once on pause, resume and cancel is told before the answer" {
    start -S
    client <<'END'
from client import Client
c = Client()
c.ask("block-stream", device="virtio0", speed=65536)
for command, want in (("pause", "paused return"), ("resume", "running return"),
                      ("cancel", "aborting BLOCK_JOB_CANCELLED concluded null return")):
    c.seen.clear()
    c.ask("block-job-" + command, device="virtio0")
    assert c.names() == want, c.names()
assert c.ask("query-block-jobs") == {"return": []}
END
}

@test "a job that may not finalize by itself says that it is pending" {
    start -S
    client <<'END'
from client import Client
c = Client()
c.ask("block-stream", device="virtio0", job_id="j", auto_finalize=False, auto_dismiss=False)
assert c.event("BLOCK_JOB_PENDING")["data"] == {"type": "stream", "id": "j"}
c.ask("block-job-finalize", id="j")
c.event("BLOCK_JOB_COMPLETED")
assert c.ask("query-block-jobs")["return"][0]["status"] == "concluded"
c.ask("block-job-dismiss", id="j")
assert c.ask("query-block-jobs") == {"return": []}
END
}

@test "quit with a running job: SHUTDOWN, the end of the job, the answer, the end" {
    start -S
    client <<'END'
from client import Client
c = Client()
c.ask("block-stream", device="virtio0", speed=1024)
c.seen.clear()
assert c.ask("quit") == {"return": {}}
assert c.names() == "SHUTDOWN aborting BLOCK_JOB_CANCELLED concluded null return", c.names()
assert c.seen[0]["data"] == {"guest": False, "reason": "host-qmp-quit"}
assert c.ended()
END
    mg_wait
    assert_clean C.img
    assert_chain C.img C.img B.img A.img
}

@test "a signal is told as SHUTDOWN by the host" {
    start
    client "$(pgrep -P $MG_PID)" <<'END'
import os
import signal
import sys
from client import Client
c = Client()
os.kill(int(sys.argv[1]), signal.SIGTERM)
assert c.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-signal"}
assert c.ended()
END
    status=0
    mg_wait || status=$? # not under `run`: a subshell has no children to wait for
    assert_status 143
}

@test "stop and cont are told once, before their answers, and only when something changes" {
    start
    client <<'END'
from client import Client
c = Client()
for command, want in (("stop", "STOP return"), ("stop", "return"), ("cont", "RESUME return"), ("cont", "return"),
                      ("system_reset", "RESET return")):
    c.seen.clear()
    c.ask(command)
    assert c.names() == want, (command, c.names())
    for message in c.seen:
        assert message.get("event") not in ("STOP", "RESUME") or "data" not in message
END
}

@test "a guest's write error under werror=stop: the error, then STOP; cont tries again" {
    qemu-img create -q -f qcow2 w.img 64M
    # A limit on the size of files is an error of the host that needs no special host.
    (ulimit -f 1024; exec timeout "$MG_TIMEOUT" "$MERGANSER" -S -drive file=w.img,if=virtio,format=qcow2,node-name=w,werror=stop \
        -guest profile=stamp,rw=write,bs=64k,rate_iops=0 -monitor none -qmp unix:qmp,server=on,wait=off </dev/null 3>&-) &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    client <<'END'
from client import Client
c = Client()
for attempt in range(2):
    c.ask("cont")
    while "STOP" not in c.names():
        c.take()
    assert c.names().endswith("RESUME return BLOCK_IO_ERROR STOP"), c.names()
    error = c.event("BLOCK_IO_ERROR")["data"]
    assert error == {"device": "virtio0", "nospace": False, "node-name": "w", "reason": "File too large",
                     "operation": "write", "action": "stop"}, error
    assert c.ask("query-status")["return"]["status"] == "io-error"
    assert c.ask("query-block")["return"][0]["io-status"] == "failed"
    c.seen.clear()
assert c.ask("quit") == {"return": {}}
END
    local rc=0
    mg_wait || rc=$?
    [ "$rc" -eq 4 ] # it is left stopped by an error
}

@test "a guest's write error under werror=report is told and the machine runs on" {
    qemu-img create -q -f qcow2 w.img 64M
    (ulimit -f 1024; exec timeout "$MG_TIMEOUT" "$MERGANSER" -S -drive file=w.img,if=virtio,format=qcow2,node-name=w,werror=report \
        -guest profile=stamp,rw=write,bs=64k,rate_iops=100 -monitor none -qmp unix:qmp,server=on,wait=off </dev/null 3>&-) &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    client <<'END'
from client import Client
c = Client()
c.ask("cont")
error = c.event("BLOCK_IO_ERROR")["data"]
assert error == {"device": "virtio0", "node-name": "w", "reason": "File too large", "operation": "write",
                 "action": "report"}, error
assert c.ask("query-status")["return"]["status"] == "running"
END
}

@test "a corrupt image found at run time is told" {
    qemu-img create -q -f qcow2 bad.img 64M
    qemu-io -f qcow2 -c 'write -q 0 64k' bad.img
    # The first entry of the L2 table: a host offset that is no multiple of the cluster size.
    table=$(python3 -c "
import struct
f = open('bad.img', 'rb+')
l1 = struct.unpack('>Q', f.read(48)[40:48])[0]
f.seek(l1)
l2 = struct.unpack('>Q', f.read(8))[0] & 0x00fffffffffffe00
f.seek(l2)
f.write(struct.pack('>Q', 1 << 63 | 0x50200))
print(hex(l2))")
    mg_start -S -drive file=bad.img,if=none,id=d,format=qcow2,node-name=bad
    client "$table" <<'END'
import sys
from client import Client
c = Client()
c.ask("human-monitor-command", command_line='qemu-io d "read 0 64k"')
told = c.event("BLOCK_IMAGE_CORRUPTED")["data"]
want = "Cluster allocation offset 0x50200 unaligned (L2 offset: %s, L2 index: 0)" % sys.argv[1]
assert told == {"device": "d", "msg": want, "node-name": "bad", "fatal": True}, told
END
}

@test "an image that no device has, found corrupt, is told without a device" {
    qemu-img create -q -f qcow2 bad.img 64M
    qemu-io -f qcow2 -c 'write -q 0 64k' bad.img
    printf '\2' | dd of=bad.img bs=1 seek=$((4 * 65536 + 6)) conv=notrunc status=none # the place of the first cluster
    mg_start -S -blockdev driver=qcow2,node-name=bad,file.driver=file,file.filename=bad.img
    client <<'END'
from client import Client
c = Client()
c.ask("human-monitor-command", command_line='qemu-io bad "read 0 64k"')
told = c.event("BLOCK_IMAGE_CORRUPTED")["data"]
assert told["device"] == "" and told["node-name"] == "bad", told
END
}

@test "whether there was room is told where a policy asks for it, also one for reads" {
    printf '[inject-error]\nevent = "none"\nerrno = "5"\niotype = "read"\n' >rules
    truncate -s 1M raw.img
    mg_start -S -blockdev driver=raw,node-name=r,file.driver=blkdebug,file.config=rules,file.image.driver=file,file.image.filename=raw.img \
        -device virtio-blk,drive=r,id=v,rerror=enospc,werror=report -guest rw=read,rate_iops=100
    client <<'END'
from client import Client
c = Client()
c.ask("cont")
error = c.event("BLOCK_IO_ERROR")["data"]
assert error == {"device": "", "nospace": False, "node-name": "r", "reason": "Input/output error", "operation": "read",
                 "action": "report"}, error
END
}

@test "a device without an id goes by its path, and its event names none" {
    mg_start -S -drive file=C.img,if=none,id=d,format=qcow2
    client <<'END'
from client import Client
c = Client()
c.ask("device_add", driver="virtio-blk", drive="d")
path = "/machine/peripheral-anon/device[0]"
c.ask("device_del", id=path)
c.ask("system_reset")
assert c.event("DEVICE_DELETED")["data"] == {"path": path + "/virtio-backend"}
assert c.event("DEVICE_DELETED")["data"] == {"path": path}
END
}
