# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of the soak: several lives of the program over one chain, each but the last ended by SIGKILL.

    made        five differing layers on real files, in the working directory
    a life      a guest writes; the operator streams, commits, snapshots, makes new images, cancels, pauses, writes and flushes
                by himself (in a range that the guest leaves alone); at a random moment the process is killed
    judged      every image by qemu-img check; the chain's names; every sector. What the operator flushed must be there,
                what he wrote later may be; the guest's sectors are old or its own stamps for that place
    the last    the commit and the merges that were interrupted run again to their end, then `quit`

The soak sees the program from outside only: its sockets, its files, its exit code. The moment of a kill is real time, so a
seed repeats what is drawn, not what happens. chain.Bad says what was wrong.
"""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "qmp"))
import chain  # noqa: E402
import client  # noqa: E402

GUEST_END = 16 << 20  # above it only the operator writes
BLOCK = 4096
LIFE_MAX = 60


class Killed(Exception):
    """The process is gone, as it was meant to be."""


class Round:
    """What is known of the chain: what each sector may hold, what each header may name, which image is the top."""

    def __init__(self, seed, counts):
        self.counts = counts  # a Counter
        counts.update(dict.fromkeys(("kills", "merges", "commits", "repeated commits", "snapshots", "new images"), 0))
        self.rnd = random.Random(seed)
        self.before = chain.make(self.rnd, "ABCDE")
        self.top, self.next_top, self.snapshots, self.committing = "file-E.img", None, 0, False
        self.made = {}     # name of a new image that is told to be whole: its size
        self.profile = self.rnd.choice(("stamp", "stamp", "preserve"))
        self.trims = self.profile == "stamp" and self.rnd.random() < 0.5
        self.known = {}    # address of a sector: what it may hold; the first is what is flushed
        self.backing = {f"file-{b}.img": {f"file-{a}.img"} for a, b in zip("ABCD", "BCDE")}
        self.backing["file-A.img"] = {None}
        self.jobs = {}     # id: (target, base) of those that were started
        self.again = []    # streams that were interrupted
        self.version = 0
        self.process = self.qmp = None

    # --- The program -------------------------------------------------------------------------------------------------

    def start(self):
        try:
            os.remove("qmp")
        except FileNotFoundError:
            pass
        guest = (f"profile={self.profile},size={GUEST_END},rw={'randtrimwrite' if self.trims else 'randrw'},"
                 f"iodepth={self.rnd.choice((1, 8))},rate_iops={self.rnd.choice((200, 2000))},flush_every=20")
        out = open("transcript", "ab")
        self.process = subprocess.Popen(
            [os.environ["MERGANSER"], "-drive", f"file={self.top},if=virtio,format=qcow2,discard=unmap", "-guest", guest,
             "-qmp", "unix:qmp,server=on,wait=off", "-monitor", "none"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        out.close()
        for _ in range(400):
            try:
                self.qmp = client.Client()
                return
            except (FileNotFoundError, ConnectionRefusedError):  # not bound yet, does not listen yet
                pass
            if self.process.poll() is not None:
                raise chain.Bad(f"the program ended with {self.process.returncode} at the start on {self.top}")
            time.sleep(0.025)
        raise chain.Bad("the program does not open its monitor")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def ask(self, command, **arguments):
        """The answer, or Killed. Events that came with it are taken note of."""
        try:
            answer = self.qmp.ask(command, **arguments)
        except (OSError, EOFError) as why:
            raise Killed() from why
        self.take_events()
        return answer

    def take_events(self):
        for message in self.qmp.seen:
            name, data = message.get("event"), message.get("data", {})
            if name == "BLOCK_JOB_COMPLETED":
                self.job_completed(data)
            elif name == "BLOCK_JOB_CANCELLED":
                self.take_back(*self.jobs.pop(data["device"]))
        self.qmp.seen.clear()

    def job_completed(self, data):
        target, base = self.jobs.pop(data["device"])
        if "error" in data:
            raise chain.Bad(f"the job on {target} failed: {data['error']}")
        self.backing[target] = {base}
        self.counts["merges"] += 1

    # --- The operator ------------------------------------------------------------------------------------------------

    def hmp(self, line):
        return self.ask("human-monitor-command", command_line=line)["return"]

    def layers(self):
        """The chain as it is open, top first, as names of files and of nodes."""
        nodes = {node["file"]: node["node-name"] for node in self.ask("query-named-block-nodes")["return"]
                 if node["drv"] == "qcow2"}
        info = self.ask("query-block")["return"][0]["inserted"]["image"]
        found = []
        while info:
            name = os.path.basename(info["filename"])
            found.append((name, nodes[info["filename"]]))
            info = info.get("backing-image")
        return found

    def stream(self):
        layers = self.layers()
        if len(layers) < 2:
            return
        target = self.rnd.randrange(len(layers) - 1)
        base = self.rnd.choice([None] + list(range(target + 1, len(layers))))
        self.stream_this(layers, target, base, speed=self.rnd.choice((0, 1 << 20, 4 << 20)))

    def stream_this(self, layers, target, base, speed=0):
        name, job = layers[target][0], f"job{self.version}"
        self.version += 1
        words = {} if base is None else {"base_node": layers[base][1]}
        below = None if base is None else layers[base][0]
        self.backing.setdefault(name, set()).add(below)
        self.jobs[job] = (name, below)
        answer = self.ask("block-stream", device=layers[target][1], job_id=job, speed=speed, **words)
        if "error" in answer:
            del self.jobs[job]
            self.take_back(name, below)

    def take_back(self, name, below):
        """A stream was refused or cancelled, and has changed nothing."""
        if not any(job[0] == name for job in self.jobs.values()) and len(self.backing[name]) > 1:
            self.backing[name].discard(below)

    def snapshot(self):
        name = f"s{self.snapshots}.img"
        self.snapshots += 1
        self.next_top = name
        answer = self.ask("blockdev-snapshot-sync", device="virtio0", snapshot_file=name, format="qcow2")
        self.next_top = None
        if "error" not in answer:
            self.backing[name] = {self.top}
            self.top = name
            self.counts["snapshots"] += 1
        elif os.path.exists(name):
            raise chain.Bad(f"a snapshot was refused and left {name}")

    def write(self):
        first = GUEST_END // BLOCK
        offset = self.rnd.randrange(first, len(self.before) // BLOCK) * BLOCK
        length = min(self.rnd.choice((1, 1, 16, 40)) * BLOCK, len(self.before) // BLOCK * BLOCK - offset)
        self.version += 1
        byte = self.version % 254 + 1
        for address in range(offset, offset + length, chain.SECTOR):
            self.known.setdefault(address, [self.before[address:address + chain.SECTOR]]).append(bytes([byte]) * chain.SECTOR)
        answer = self.hmp(f'qemu-io virtio0 "write -P {byte} {offset} {length}"')
        if not answer.startswith("wrote"):
            raise chain.Bad(f"the operator's write failed: {answer}")

    def flush(self):
        answer = self.hmp("qemu-io virtio0 flush")
        if answer.strip():
            raise chain.Bad(f"the operator's flush failed: {answer}")
        for address, contents in self.known.items():
            self.known[address] = contents[-1:]

    def on_a_job(self):
        if not self.jobs:
            return
        job = self.rnd.choice(sorted(self.jobs))
        command = self.rnd.choice(("block-job-cancel", "block-job-pause", "block-job-resume", "block-job-set-speed"))
        words = {"speed": self.rnd.choice((0, 1 << 16, 1 << 22))} if command.endswith("speed") else {}
        self.ask(command, device=job, **words)

    def commit(self):
        """Refused while a job uses the images."""
        self.committing = True
        self.counts["commits"] += self.hmp("commit virtio0") == ""
        self.committing = False

    def make_job(self, **options):
        job = f"make{self.version}"
        self.version += 1
        answer = self.ask("blockdev-create", job_id=job, options=options)
        if "error" in answer:
            raise chain.Bad(f"blockdev-create of {options}: {answer['error']}")
        try:
            state = self.qmp.concluded(job)
        except (OSError, EOFError) as why:
            raise Killed() from why
        if "error" in state:
            raise chain.Bad(f"blockdev-create of {options}: {state['error']}")

    def make(self):
        name, size = f"new{self.version}", self.rnd.randrange(1, 2000) << 16
        self.make_job(driver="file", filename=name, size=0)
        self.make_job(driver="qcow2", file={"driver": "file", "filename": name}, size=size,
                      preallocation=self.rnd.choice(("off", "metadata")))
        self.made[name] = size
        self.counts["new images"] += 1

    def stop_and_go(self):
        self.ask("stop")
        time.sleep(self.rnd.random() * 0.02)
        self.ask("cont")

    def look(self):
        """What the guest has seen so far is right."""
        for guest in self.ask("query-guest")["return"]:
            if guest["mismatches"] or guest["errors"]:
                raise chain.Bad(f"the guest saw {guest['mismatches']} mismatches and {guest['errors']} errors")

    def operate(self):
        rows = ((25, self.stream), (12, self.snapshot), (25, self.write), (12, self.flush), (10, self.on_a_job),
                (8, self.commit), (4, self.make), (4, self.stop_and_go), (2, lambda: self.ask("system_reset")), (10, self.look))
        while True:
            self.rnd.choices([row[1] for row in rows], [row[0] for row in rows])[0]()
            time.sleep(self.rnd.random() ** 3 * 0.1)

    # --- Judging -----------------------------------------------------------------------------------------------------

    def wait_unlocked(self):
        """The kernel ends a dead process's requests, and lets go of its locks, a moment after the process; of each file apart."""
        for name in [name for name in sorted(os.listdir(".")) if name.endswith(".img")]:
            for _ in range(400):
                run = subprocess.run(("qemu-img", "info", name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
                if b"lock" not in run.stderr:
                    break
                time.sleep(0.025)
            else:
                raise chain.Bad(f"{name} stays locked")

    @staticmethod
    def info(name):
        run = subprocess.run(("qemu-img", "info", "--output=json", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        return json.loads(run.stdout) if run.returncode == 0 else None

    def take_top(self):
        """A snapshot that nobody heard the end of is taken when it is there."""
        name, self.next_top = self.next_top, None
        if not name or not os.path.exists(name):
            return
        info = self.info(name)
        if info and info.get("backing-filename"):
            self.backing[name] = {self.top}
            self.top = name
        else:
            os.remove(name)

    def judge_names(self):
        name, depth = self.top, 0
        while name:
            info = self.info(name)
            if not info:
                raise chain.Bad(f"{name} cannot be opened")
            below = info.get("backing-filename")
            below = os.path.basename(below) if below else None
            if below not in self.backing[name]:
                raise chain.Bad(f"{name} names {below}, which is none of {self.backing[name]}")
            self.backing[name] = {below}
            name, depth = below, depth + 1
        return depth

    def judge(self):
        self.judge_names()
        for name in sorted(os.listdir(".")):
            if name.endswith(".img"):
                chain.check(name, leaks=True)
        self.judge_made()
        now = chain.content(self.top)
        chain.judge(now, self.before, self.profile, self.trims, self.known)
        for address in self.known:
            self.known[address] = [now[address:address + chain.SECTOR]]

    def judge_made(self):
        for name, size in self.made.items():
            chain.check(name)
            if self.info(name)["virtual-size"] != size:
                raise chain.Bad(f"{name} was made with {size} bytes and has {self.info(name)['virtual-size']}")
            os.remove(name)
        self.made.clear()

    def sabotage(self):
        """Spoil one sector of data that the chain shows."""
        extents = json.loads(subprocess.run(("qemu-img", "map", "--output=json", self.top), stdout=subprocess.PIPE, check=True).stdout)
        extent = next(e for e in extents if e["data"] and "offset" in e)
        with open(extent["filename"] if "filename" in extent else self.image_at(extent["depth"]), "r+b") as image:
            image.seek(extent["offset"])
            image.write(b"\xa5sabotage" * 56 + b"\xa5" * 8)

    def image_at(self, depth):
        name = self.top
        for _ in range(depth):
            name = os.path.basename(self.info(name)["backing-filename"])
        return name

    # --- The whole ---------------------------------------------------------------------------------------------------

    def life_with_kill(self):
        self.jobs = {}
        self.start()
        timer = threading.Timer(0.02 + self.rnd.random() ** 2 * 1.5, self.kill)
        timer.start()
        try:
            self.operate()
        except Killed:
            pass
        finally:
            timer.cancel()
            self.kill()
            code = self.process.wait()
        if code != -signal.SIGKILL:
            raise chain.Bad(f"the program ended by itself with {code}")
        self.counts["kills"] += 1
        self.again = [job[0] for job in self.jobs.values()]
        self.wait_unlocked()
        self.take_top()

    def last_life(self):
        """What was interrupted runs again, then everything is merged into the top. A commit first: it wants no jobs."""
        self.jobs = {}
        self.start()
        timer = threading.Timer(LIFE_MAX, self.kill)
        timer.start()
        try:
            layers = self.layers()
            if self.committing and len(layers) > 1:
                self.commit_again()
            for target in [i for i in range(1, len(layers) - 1) if layers[i][0] in self.again]:
                self.stream_this(layers, target, None)
                self.until_jobs_end()
            layers = self.layers()
            if len(layers) > 1:
                self.stream_this(layers, 0, None)
            self.until_jobs_end()
            self.look()
            self.ask("quit")
            code = self.process.wait()
        except Killed as why:
            raise chain.Bad(f"the last life ended early with {self.process.wait()} ({LIFE_MAX} s is its limit)") from why
        finally:
            timer.cancel()
            self.kill()
            self.process.wait()
        if code != 0:
            raise chain.Bad(f"exit code {code} after the last life")

    def commit_again(self):
        answer = self.hmp("commit virtio0")
        if answer:
            raise chain.Bad(f"the commit that was interrupted is not done: {answer}")
        self.counts["repeated commits"] += 1

    def until_jobs_end(self):
        while self.jobs:
            self.ask("query-block-jobs")
            time.sleep(0.005)

    def play(self, sabotage=False):
        lives = self.rnd.randrange(1, 4)
        for _ in range(lives):
            self.life_with_kill()
            if sabotage:
                self.sabotage()
            self.judge()
        self.last_life()
        self.judge()
        if self.judge_names() != 1:
            raise chain.Bad("the chain was merged and still has more than one image")
