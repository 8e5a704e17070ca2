# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of a storm: several monitors change the graph of nodes at once, while guests and NBD clients use it.

    made        a chain of four images under a disk that stays (virtio0), a chain of two that is reopened with other options
                (node t), three images that come and go as disks, nodes, media and exports
    the storm   two human monitors and two of QMP each send what was drawn for them from the seed, as fast as they are answered
    afterwards  every job ends when it may; the guests saw what they wrote; `quit` is obeyed
    judged      no answer took ANSWERS_WITHIN; the exit code; no word of a sanitizer; qemu-img check of every image; the content
                of both chains: as it was, or what the monitors wrote where only they write

What is drawn follows from the seed; how the monitors' commands meet is real time. client-N.log holds what each sent and was
answered, `transcript` what the program said. chain.Bad tells what was wrong.
"""
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "qmp"))
import chain  # noqa: E402 (the path comes first)
import client  # noqa: E402

ANSWERS_WITHIN = 60
SIZE = 8 << 20
GUEST_END = 4 << 20    # above it only the monitors write:
WRITES_END = 6 << 20
PATTERNS = (1, 3)
PROMPT = b"(qemu) "
OTHERS = ("sp", "q", "ny", "ide1-cd0")  # what comes and goes
# Node t keeps its backing file: one that is reopened with another than its header names, and is then committed, is empty.
STREAMS = OTHERS + ("virtio0", "nd")
DISKS = STREAMS + ("t", "v0")

HUMAN = (
    "info block", "info block -n -v", "info chain", "info chain {disk}", "info block-jobs -v", "info guest", "info blockstats",
    "info qtree", "info snapshots", "info counters",
    "drive_add 0 if=none,id=sp,file=x.img", "drive_add 0 if=none,id=q,file=z.img", "drive_del {other}",
    "device_add virtio-blk,drive=sp,id=vs", "device_add virtio-blk,drive=q,id=vq", "device_add virtio-blk,drive=ny,id=vy",
    "device_del vs", "device_del vq", "device_del vy",
    "eject ide1-cd0", "eject -f ide1-cd0", "change ide1-cd0 cd.iso", "eject sp", "change sp x.img", "change q z.img",
    "snapshot_blkdev {disk} over{number}.img", "snapshot_blkdev virtio0 over{number}.img",
    "block_stream {stream}", "block_stream virtio0 1M a.img", "block_stream virtio0 0 b.img", "block_stream nd 500k",
    "block_job_cancel {disk}", "block_job_cancel -f virtio0", "block_job_pause virtio0", "block_job_resume virtio0",
    "block_job_set_speed virtio0 0",
    "nbd_server_start unix:nbd", "nbd_server_add {disk}", "nbd_server_add -w {other}", "nbd_server_remove {disk}",
    "nbd_server_remove -f {disk}", "nbd_server_stop",
    "block_resize {disk} {size}M", "commit {disk}", "commit all",
    'qemu-io {disk} "read 0 1M"', 'qemu-io {disk} "aio_write -P 1 {place}k 64k"', 'qemu-io {disk} "write -P 3 {place}k 64k"',
    'qemu-io {disk} "flush"', 'qemu-io {disk} map',
    "stop", "cont", "cont", "system_reset", "block_set_io_throttle {disk} {limit} 0 0 0 0 0",
    "guest virtio0 bs=4k", "guest vy stop", "guest vy start", "object_add throttle-group,id=g{small}", "object_del g{small}",
    "drive_add -n 0 driver=qcow2,node-name=ny,file.driver=file,file.filename=y.img",
    "drive_add -n 0 driver=raw,node-name=nz,file.driver=file,file.filename=z.img", "drive_del nz",
)


def human_line(rnd, number):
    return rnd.choice(HUMAN).format(
        disk=rnd.choice(DISKS), stream=rnd.choice(STREAMS), other=rnd.choice(OTHERS), number=number, size=rnd.choice((8, 9, 10)),
        place=rnd.randrange(GUEST_END >> 10, (WRITES_END >> 10) - 64), limit=rnd.choice((0, 100000000)), small=rnd.randrange(3))


def reopened(rnd):
    options = {"driver": "qcow2", "node-name": "t", "file": "tf", "backing": "b"}
    if rnd.random() < 0.5:
        options["l2-cache-size"] = rnd.choice((65536, 1 << 20))
    if rnd.random() < 0.3:
        options["lazy-refcounts"] = True
    if rnd.random() < 0.1:
        options["read-only"] = True
    return options


def group(rnd, number):
    """One of two snapshots is refused now and then, or all are called off."""
    actions = [{"type": "blockdev-snapshot-sync", "data": {"device": "virtio0", "snapshot-file": f"group{number}.img"}}]
    if rnd.random() < 0.5:
        actions.append({"type": "blockdev-snapshot-sync", "data": {"device": "sp", "snapshot-file": f"other{number}.img"}})
    if rnd.random() < 0.3:
        actions.append({"type": "abort", "data": {}})
    return actions


def request(rnd, number):
    rows = (
        (8, "blockdev-reopen", lambda: {"options": [reopened(rnd)]}),
        (2, "blockdev-add", lambda: {"driver": "qcow2", "node-name": "nq", "file": {"driver": "file", "filename": "z.img"}}),
        (2, "blockdev-del", lambda: {"node-name": rnd.choice(("nq", "ny", "b", "tf"))}),
        (2, "block_resize", lambda: {"node-name": "t", "size": rnd.choice((8, 9)) << 20}),
        (2, "block-stream", lambda: {"device": rnd.choice(("virtio0", "nd")), "job-id": f"job{number % 2}",
                                     "on-error": rnd.choice(("report", "stop"))}),
        (2, "transaction", lambda: {"actions": group(rnd, number)}),
        (1, "blockdev-create", lambda: {"job-id": f"make{number % 2}", "options": {
            "driver": "file", "filename": f"made{number}", "size": 65536}}),
        (2, "block-export-add", lambda: {"type": "nbd", "id": "e", "node-name": rnd.choice(("t", "ny", "nd", "nq"))}),
        (2, "block-export-del", lambda: {"id": "e", "mode": rnd.choice(("safe", "hard"))}),
        (1, "blockdev-change-medium", lambda: {"device": "ide1-cd0", "filename": rnd.choice(("cd.iso", "z.img"))}),
        (1, "device_add", lambda: {"driver": "virtio-blk", "drive": rnd.choice(("ny", "nq")), "id": rnd.choice(("vy", "vq"))}),
        (1, rnd.choice(("job-pause", "job-resume", "job-cancel", "job-dismiss")), lambda: {
            "id": rnd.choice(("virtio0", "job0", "job1", "make0", "make1"))}),
        (1, "change-backing-file", lambda: {"device": "virtio0", "image-node-name": "nd", "backing-file": "c.img"}),
        (1, "query-block", dict), (1, "query-named-block-nodes", dict), (1, "query-blockstats", dict), (1, "query-jobs", dict),
        (1, "query-block-exports", dict),
        (6, "human-monitor-command", lambda: {"command-line": human_line(rnd, number)}),
    )
    _, name, arguments = rnd.choices(rows, [row[0] for row in rows])[0]
    return {"execute": name, "arguments": arguments()}


class Human:
    """A human monitor on a socket."""

    def __init__(self, path):
        self.conn = socket.socket(socket.AF_UNIX)
        self.conn.settimeout(ANSWERS_WITHIN)
        self.conn.connect(path)
        self.answer()

    def answer(self):
        text = b""
        while not text.endswith(PROMPT):
            piece = self.conn.recv(1 << 16)
            if not piece:
                raise EOFError("the connection ended")
            text += piece
        return text

    def ask(self, line):
        self.conn.sendall(line.encode() + b"\n")
        return self.answer()


class Machine(client.Client):
    """A monitor of QMP."""

    def __init__(self, path):
        super().__init__(path)
        self.conn.settimeout(ANSWERS_WITHIN)

    def ask_this(self, words):
        self.send(json.dumps(words))
        answer = self.answer()
        self.seen.clear()
        return answer


class Storm:
    def __init__(self, seed, counts, commands):
        self.seed, self.counts, self.commands, self.bad = seed, counts, commands, []
        rnd = random.Random(seed)
        for letter, below in zip("abcd", " abc"):
            make(rnd, f"{letter}.img", below.strip() and f"{below}.img")
        make(rnd, "base.img", None)
        make(rnd, "top.img", "base.img")
        for letter in "xyz":
            chain.tool("qemu-img", "create", "-q", "-f", "qcow2", f"{letter}.img", str(SIZE))
        chain.tool("qemu-img", "create", "-q", "-f", "raw", "cd.iso", "1M")
        self.before = {"virtio0": chain.content("d.img"), "t": chain.content("top.img")}
        self.threads, self.over, self.process = [], threading.Event(), None

    # --- The program -------------------------------------------------------------------------------------------------

    def start(self):
        words = [os.environ["MERGANSER"], "-monitor", "none", "-seed", str(self.seed)]
        for i in range(2):
            words += ["-chardev", f"socket,id=h{i},path=human{i},server=on,wait=off", "-mon", f"h{i},mode=readline"]
            words += ["-qmp", f"unix:qmp{i},server=on,wait=off"]
        words += ["-qmp", "unix:qmp,server=on,wait=off", "-drive", "file=d.img,if=virtio,node-name=nd,discard=unmap",
                  "-drive", "file=x.img,if=none,id=sp", "-cdrom", "cd.iso",
                  "-blockdev", "driver=qcow2,node-name=ny,file.driver=file,file.filename=y.img",
                  "-device", "virtio-blk,drive=ny,id=vy",
                  "-blockdev", "driver=qcow2,node-name=b,read-only=on,file.driver=file,file.filename=base.img",
                  "-blockdev", "driver=file,node-name=tf,filename=top.img",
                  "-blockdev", "driver=qcow2,node-name=t,file=tf,backing=b", "-device", "virtio-blk,drive=t,id=v0",
                  "-guest", f"profile=preserve,rate_iops=2000,bs=512-16k,iodepth=4,size={GUEST_END},flush_every=20"]
        with open("transcript", "ab") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        for _ in range(400):
            try:
                return Machine("qmp")
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.025)
        raise chain.Bad("the program does not open its monitors")

    # --- The storm ---------------------------------------------------------------------------------------------------

    def monitor(self, number):
        """Sends what is drawn for it."""
        rnd = random.Random(self.seed * 8 + number)
        with open(f"client-{number}.log", "w", encoding="utf-8") as log:
            try:
                human, path = number < 2, f"human{number}" if number < 2 else f"qmp{number - 2}"
                monitor = Human(path) if human else Machine(path)
                for i in range(self.commands):
                    words = human_line(rnd, number * 10000 + i) if human else request(rnd, number * 10000 + i)
                    print(words, file=log, flush=True)
                    answer = monitor.ask(words) if human else monitor.ask_this(words)
                    print("   ", str(answer)[-300:], file=log, flush=True)
            except (OSError, EOFError) as why:
                self.bad.append(f"client {number} was not answered: {why or type(why).__name__}")

    def nbd(self):
        rnd = random.Random(self.seed)
        while not self.over.wait(0.05):
            subprocess.run(("timeout", "5", "qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", "-c", "read 1M 1M",
                            f"nbd+unix:///{rnd.choice(DISKS)}?socket=nbd"),
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def storm(self):
        monitors = [threading.Thread(target=self.monitor, args=(i,), daemon=True) for i in range(4)]
        self.threads = monitors + [threading.Thread(target=self.nbd, daemon=True)]
        for thread in self.threads:
            thread.start()
        for thread in monitors:
            thread.join()
        self.over.set()
        self.threads[-1].join()
        if self.process.poll() is not None:
            raise chain.Bad(f"the program ended with {self.process.returncode} in the storm")
        if self.bad:
            raise chain.Bad("; ".join(self.bad))
        self.counts["commands"] += 4 * self.commands

    # --- Afterwards --------------------------------------------------------------------------------------------------

    @staticmethod
    def end_jobs(qmp):
        """Whatever a job waits for, it gets."""
        deadline = time.monotonic() + ANSWERS_WITHIN
        while True:
            jobs = qmp.ask("query-jobs")["return"]
            if not jobs:
                return
            if time.monotonic() > deadline:
                raise chain.Bad(f"jobs do not end: {jobs}")
            for job in jobs:
                qmp.ask("block-job-set-speed", device=job["id"], speed=0)
                for verb in ("job-resume", "job-finalize", "job-dismiss"):
                    qmp.ask(verb, id=job["id"])
            time.sleep(0.02)

    def look(self, qmp):
        """No guest has seen wrong data; those of the disks that stay no error either."""
        guests = {guest["device"]: guest for guest in qmp.ask("query-guest")["return"]}
        for name, guest in guests.items():
            if guest["mismatches"] or (guest["errors"] and name in ("virtio0", "v0")):
                raise chain.Bad(f"{name}: {guest}")
            self.counts["requests of guests"] += guest["reads"] + guest["writes"]

    @staticmethod
    def tops(qmp):
        found = {}
        for disk in qmp.ask("query-block")["return"]:
            name = "virtio0" if disk["device"] == "virtio0" else "t" if "v0" in disk.get("qdev", "").split("/") else None
            if name:
                found[name] = os.path.basename(disk["inserted"]["image"]["filename"])
        return found

    def end(self, qmp):
        qmp.ask("cont")
        for disk in ("virtio0", "v0"):
            qmp.ask("human-monitor-command", command_line=f"block_set_io_throttle {disk} 0 0 0 0 0 0")
        self.end_jobs(qmp)
        self.look(qmp)
        tops = self.tops(qmp)
        qmp.ask("quit")
        try:
            code = self.process.wait(ANSWERS_WITHIN)
        except subprocess.TimeoutExpired as why:
            raise chain.Bad("the program does not end") from why
        # 4: a job was refused what it needed, and failed; 6: a guest whose disk was taken away met errors.
        if code not in (0, 4, 6):
            raise chain.Bad(f"exit code {code}")
        return tops

    # --- Judging -----------------------------------------------------------------------------------------------------

    def judge(self, tops):
        with open("transcript", encoding="utf-8", errors="replace") as transcript:
            word = re.search(r"(runtime error|Sanitizer|a command does not end).*", transcript.read())
        if word:
            raise chain.Bad(word.group())
        for name in sorted(os.listdir(".")):
            if name.endswith(".img"):
                chain.check(name)
        for disk, before in self.before.items():
            now = chain.content(tops[disk])
            written = {bytes([byte]) * chain.SECTOR for byte in PATTERNS}
            known = {address: written | {before[address:address + chain.SECTOR]}
                     for address in range(GUEST_END, WRITES_END, chain.SECTOR)}
            chain.judge(now[:SIZE], before, "preserve", known=known)

    def play(self):
        try:
            qmp = self.start()
            self.storm()
            tops = self.end(qmp)
        except (OSError, EOFError) as why:
            raise chain.Bad(f"the program does not answer: {why}") from why
        finally:
            self.over.set()
            if self.process:
                self.process.kill()
                self.process.wait()
            for thread in self.threads:
                thread.join()
        self.judge(tops)


def make(rnd, name, backing):
    chain.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", rnd.choice(chain.KINDS),
               *(["-b", backing, "-F", "qcow2"] if backing else []), name, str(SIZE))
    words = []
    for _ in range(4):
        words += ["-c", f"write -q -P {rnd.randrange(4, 255)} {rnd.randrange(0, SIZE - (1 << 20), 512)} {rnd.randrange(1, 1024) * 512}"]
    chain.tool("qemu-io", "-f", "qcow2", *words, name)
