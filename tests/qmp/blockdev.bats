# SPDX-License-Identifier: GPL-2.0-or-later
#
# Nodes, images and devices that programs make and change: what becomes of the images, judged by qemu-img and qemu-io.

load ../lib.bash

setup() {
    common_setup
    make_chain A.img B.img
    qemu-img create -q -f qcow2 other.img 4M
    export PYTHONPATH=$TOP/tests/qmp PYTHONDONTWRITEBYTECODE=1
}

start() {
    mg_start -drive file=B.img,if=virtio,format=qcow2,node-name=B,backing.node-name=A \
        -drive file=other.img,if=ide,format=qcow2,node-name=other "$@"
}

client() {
    timeout "$MG_TIMEOUT" python3 - "$@" 3>&-
}

@test "an image that programs make, open, put on top and merge: the chain is whole and holds the same" {
    qemu-img convert -O raw B.img before.raw
    start -S
    client <<'PY'
from client import Client
c = Client()
c.ask("blockdev-create", job_id="f", options={"driver": "file", "filename": "C.img", "size": 0})
c.concluded("f")
assert c.ask("blockdev-add", driver="file", node_name="C-file", filename="C.img") == {"return": {}}
c.ask("blockdev-create", job_id="i", options={"driver": "qcow2", "file": "C-file", "size": 64 << 20,
                                              "backing-file": "B.img", "backing-fmt": "qcow2"})
c.concluded("i")
assert c.ask("blockdev-add", driver="qcow2", node_name="C", file="C-file", backing=None) == {"return": {}}
assert c.ask("blockdev-snapshot", node="B", overlay="C") == {"return": {}}
c.ask("block-stream", device="virtio0", base_node="A", job_id="s")
c.event("BLOCK_JOB_COMPLETED")
assert c.ask("quit") == {"return": {}}
PY
    mg_wait
    assert_clean C.img
    assert_chain C.img C.img A.img
    qemu-img compare -q -F qcow2 -f raw before.raw C.img
}

@test "what an overlay holds already is what the guest's disk shows from then on" {
    qemu-img create -q -f qcow2 -b B.img -F qcow2 C.img
    qemu-io -f qcow2 -c "write -q -P 0x77 0 64k" C.img
    start -S
    client <<'PY'
from client import Client
c = Client()
human = lambda line: c.ask("human-monitor-command", command_line=line)["return"]
read = 'qemu-io virtio0 "read -P 0x77 0 64k"'
assert "failed" in human(read), human(read)  # the tables of the chain are known from here on
c.ask("blockdev-add", driver="qcow2", node_name="C", backing=None, file={"driver": "file", "filename": "C.img"})
assert c.ask("blockdev-snapshot", node="virtio0", overlay="C") == {"return": {}}
assert "failed" not in human(read), human(read)
PY
}

@test "a group of snapshots is all new or none: what the first one made is gone when the second fails" {
    start -S
    client <<'PY'
from client import Client
c = Client()
one = {"type": "blockdev-snapshot-sync", "data": {"device": "virtio0", "snapshot-file": "one.img"}}
for wrong in ({"type": "blockdev-snapshot-sync", "data": {"device": "ide0-hd0", "snapshot-file": "/nonexistent/x"}},
              {"type": "blockdev-snapshot-sync", "data": {"device": "virtio0", "snapshot-file": "two.img"}},
              {"type": "abort", "data": {}}):
    assert "error" in c.ask("transaction", actions=[one, wrong])
    disks = [d["inserted"]["node-name"] for d in c.ask("query-block")["return"]]
    assert disks == ["B", "other"], disks
two = {"type": "blockdev-snapshot-sync", "data": {"device": "ide0-hd0", "snapshot-file": "two.img"}}
assert c.ask("transaction", actions=[one, two]) == {"return": {}}
files = [d["inserted"]["file"] for d in c.ask("query-block")["return"]]
assert files == ["one.img", "two.img"], files
PY
    ls >files
    ! grep -q nonexistent files
    assert_chain one.img one.img B.img A.img
    assert_chain two.img two.img other.img
}

@test "a group that fails leaves no new image behind" {
    start -S
    client <<'PY'
from client import Client
c = Client()
one = {"type": "blockdev-snapshot-sync", "data": {"device": "virtio0", "snapshot-file": "one.img"}}
assert "error" in c.ask("transaction", actions=[one, {"type": "abort", "data": {}}])
PY
    [ ! -e one.img ]
}

@test "guests write on while a group of snapshots is made, and see what they wrote" {
    start -guest profile=stamp
    client <<'PY'
from client import Client
c = Client()
for i in range(5):
    actions = [{"type": "blockdev-snapshot-sync", "data": {"device": d, "snapshot-file": "%s-%d.img" % (d, i)}}
               for d in ("virtio0", "ide0-hd0")]
    assert c.ask("transaction", actions=actions) == {"return": {}}
c.ask("quit")
PY
    mg_wait
    assert_clean virtio0-4.img
    assert_clean ide0-hd0-4.img
}

@test "other options for two nodes: both change, or none when one cannot" {
    start -S
    client <<'PY'
from client import Client
c = Client()
qemu = lambda name, **more: dict({"driver": "qcow2", "node-name": name, "file": name + "-file"}, **more)
for name in ("x", "y"):
    __import__("subprocess").run(["qemu-img", "create", "-q", "-f", "qcow2", name + ".img", "1M"], check=True)
    c.ask("blockdev-add", driver="file", node_name=name + "-file", filename=name + ".img")
    c.ask("blockdev-add", **qemu(name))
shown = lambda: [(n["node-name"], n["ro"]) for n in c.ask("query-named-block-nodes", flat=True)["return"]
                 if n["node-name"] in ("x", "y")]
both = [qemu("x", **{"read-only": True}), qemu("y", **{"read-only": True})]
assert "error" in c.ask("blockdev-reopen", options=[both[0], dict(both[1], backing="nosuch")])
assert shown() == [("y", False), ("x", False)], shown()
assert c.ask("blockdev-reopen", options=both) == {"return": {}}
assert shown() == [("y", True), ("x", True)], shown()
PY
    qemu-io -r -f qcow2 -c "read -q 0 64k" x.img # a writer would not let it in
}

@test "making an image does not destroy another one, unless QEMU's ways were asked for" {
    cp other.img precious.img
    start -S
    client <<'PY'
from client import Client
c = Client()
c.ask("blockdev-create", job_id="j", options={"driver": "file", "filename": "precious.img", "size": 0})
assert "not empty" in c.concluded("j")["error"]
c.ask("blockdev-add", driver="file", node_name="p", filename="precious.img")
c.ask("blockdev-create", job_id="k", options={"driver": "qcow2", "file": "p", "size": 1 << 20})
assert "not empty" in c.concluded("k")["error"]
PY
    cmp other.img precious.img
}

@test "change-backing-file records the name durably, also in an image that is read-only" {
    start -S
    client <<'PY'
from client import Client
c = Client()
assert c.ask("change-backing-file", device="virtio0", image_node_name="B", backing_file="./A.img") == {"return": {}}
c.ask("quit")
PY
    mg_wait
    assert_clean B.img
    run qemu-img info B.img
    assert_output "backing file: ./A.img"
}

@test "a device that comes into a running machine works, and is told of when it has gone" {
    qemu-img create -q -f qcow2 hot.img 8M
    start -guest profile=stamp
    client <<'PY'
from client import Client
import time
c = Client()
c.ask("blockdev-add", driver="qcow2", node_name="hot", file={"driver": "file", "filename": "hot.img"})
assert c.ask("device_add", driver="virtio-blk", drive="hot", id="h") == {"return": {}}
ops = lambda: [d["stats"]["wr_operations"] + d["stats"]["rd_operations"] for d in c.ask("query-blockstats")["return"]
               if d.get("qdev") == "/machine/peripheral/h/virtio-backend"]
for i in range(200):
    if ops() and ops()[0]:
        break
    time.sleep(0.02)
else:
    raise AssertionError("nobody uses the new disk: %r" % ops())
c.seen.clear()
assert c.ask("device_del", id="h") == {"return": {}}
assert c.names() == "return", c.names()
assert c.event("DEVICE_DELETED")["data"] == {"path": "/machine/peripheral/h/virtio-backend"}
assert c.event("DEVICE_DELETED")["data"] == {"device": "h", "path": "/machine/peripheral/h"}
assert c.ask("blockdev-del", node_name="hot") == {"return": {}}
c.ask("quit")
PY
    mg_wait
    assert_clean hot.img
}

@test "nodes stand on each other to a limit, and are refused beyond it: at the limit requests pass them all" {
    qemu-img create -q -f qcow2 under.img 4M
    mg_start -S -drive if=none -object throttle-group,id=g
    timeout -k 2 60 python3 - "$TOP/tests/qmp" 3>&- <<'END'
import subprocess
import sys
sys.path.insert(0, sys.argv[1])
from client import Client
c = Client()
def ask(command):
    return c.ask("human-monitor-command", command_line=command)["return"]
def refused(answer):
    assert answer["error"]["desc"] == "Cannot stack more than 100 nodes on each other", answer
for kind in ("throttle", "copy-on-read", "blkdebug", "raw"):
    assert c.ask("blockdev-add", driver="null-co", node_name=kind + "0") == {"return": {}}
    def add(i):
        child = {"image" if kind == "blkdebug" else "file": kind + str(i - 1)}
        return c.ask("blockdev-add", driver=kind, node_name=kind + str(i), **child,
                     **({"throttle-group": "g"} if kind == "throttle" else {}))
    for i in range(1, 101):
        assert add(i) == {"return": {}}, i
    refused(add(101))
    assert "wrote 65536/65536" in ask(f'qemu-io {kind}100 "write 0 64k"')
# Nor does an image that is there get such a backing file.
over = {"driver": "qcow2", "node-name": "over", "file": {"driver": "file", "filename": "under.img"}}
assert c.ask("blockdev-add", **over, backing=None) == {"return": {}}
refused(c.ask("blockdev-reopen", options=[{**over, "backing": "copy-on-read100"}]))
assert c.ask("blockdev-reopen", options=[{**over, "backing": "copy-on-read99"}]) == {"return": {}}
# Images between them: each filter's image is a level, and so is what its overlay stands on.
below, names = None, []
for i in range(60):
    name = f"layer{i}.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name, "4M"], check=True)
    image = {"driver": "qcow2", "node-name": f"q{i}", "file": {"driver": "file", "filename": name}, "backing": below}
    answer = c.ask("blockdev-add", **image)
    if "error" not in answer:
        answer = c.ask("blockdev-add", driver="throttle", throttle_group="g", node_name=f"t{i}", file=f"q{i}")
    if "error" in answer:
        break
    below = f"t{i}"
refused(answer)
assert i == 50, i
assert "read 4096/4096" in ask('qemu-io t49 "read 1M 4k"')
assert "wrote 4096/4096" in ask('qemu-io t49 "write -P 5 1M 4k"')
assert "read 65536/65536" in ask('qemu-io t49 "read 1M 64k"')
refused(c.ask("blockdev-add", driver="raw", file=__import__("functools").reduce(lambda f, _: {"driver": "raw", "file": f},
                                                                                range(120), {"driver": "null-co"}), node_name="x"))
assert c.ask("quit") == {"return": {}}
END
    mg_wait
}
