# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that are measured, started and spoken to in the same way: merganser, QEMU, qemu-nbd, fio.

Both emulators are QMP servers, so one client times both.  QEMU gets what its documents recommend for speed: io_uring, an I/O
thread of its own, a metadata cache that holds every L2 table.
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import typing

MERGANSER = os.environ.get("MERGANSER", "")
QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
QEMU_NBD = os.environ.get("QEMU_NBD", "qemu-nbd")
L2_CACHE = 256 << 20  # more than any case's tables


class Failure(Exception):
    """What is measured did not do what it should: no figures."""


def pinned(cpu, command):
    """On one processor, where there are several."""
    return ["taskset", "-c", str(cpu), *command] if os.cpu_count() > 1 else command


class Emulator:
    """One running emulator with one disk, virtio0, and a QMP connection to it."""

    name = ""

    def __init__(self, image, *more):
        self.folder = tempfile.TemporaryDirectory(prefix="merganser-bench-")
        self.path = os.path.join(self.folder.name, "qmp")
        self.events = []
        self.errors = open(os.path.join(self.folder.name, "errors"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(self.command(image, *more), stdin=subprocess.DEVNULL,
                                        stdout=self.errors, stderr=self.errors)
        try:
            self.connect()
        except BaseException:
            self.close()
            raise

    def command(self, image, *more):
        raise NotImplementedError

    def connect(self):
        end = time.monotonic() + 60
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.errors.seek(0)
                    raise Failure(f"{self.name} did not start: {self.errors.read()}") from None
                time.sleep(0.001)
        self.stream = self.socket.makefile("rw", encoding="utf-8")
        self.stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = self.read()
            if "error" in answer:
                raise Failure(f"{self.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def read(self):
        line = self.stream.readline()
        if not line:
            raise Failure(f"{self.name} is gone")
        return json.loads(line)

    def wait_job(self):
        """Seconds are the caller's to take."""
        while True:
            event = self.events.pop(0) if self.events else self.read()
            if event.get("event") in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"):
                if "error" in event["data"] or event["event"] != "BLOCK_JOB_COMPLETED":
                    raise Failure(f"{self.name}: {event['data']}")
                return

    def monitor(self, line):
        return self.execute("human-monitor-command", **{"command-line": line})

    def export(self, writable=True):
        """The disk over NBD; returns its address."""
        path = os.path.join(self.folder.name, "nbd")
        self.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        self.execute("nbd-server-add", device="virtio0", writable=writable)
        return f"nbd+unix:///virtio0?socket={path}"

    def memory(self):
        """KiB now, and at the most."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            text = status.read()
        return [int(re.search(rf"{word}:\s*(\d+)", text).group(1)) for word in ("VmRSS", "VmHWM")]

    def processor(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def written(self):
        """Bytes that it has made dirty or sent to the disk so far."""
        with open(f"/proc/{self.process.pid}/io", encoding="ascii") as io:
            return int(re.search(r"^write_bytes: (\d+)", io.read(), re.M).group(1))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.errors.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Turn(typing.NamedTuple):
    """The longest turn of merganser's loop."""

    ns: int = 0        # on the wall
    by: str = ""
    work_ns: int = 0   # of any turn, the processor time of its own

    def beside(self, other):
        """Of both together."""
        return max(self, other)._replace(work_ns=max(self.work_ns, other.work_ns))

    def __str__(self):
        return f"{self.ns / 1e6:.2f} ms, by {self.by} (at work {self.work_ns / 1e6:.2f} ms at most)"


class Merganser(Emulator):
    """Each one that ends tells the longest turn of its loop."""

    name = "merganser"
    longest_turn = Turn()   # of all since somebody looked

    @classmethod
    def take_longest_turn(cls):
        turn, Merganser.longest_turn = Merganser.longest_turn, Turn()
        return turn

    def close(self):
        try:
            if self.process.poll() is None:
                self.socket.settimeout(10)
                answer = self.execute("query-loop")
                for hold in answer.get("longest", []):
                    turn = Turn(hold["ns"], hold["name"], answer["longest-work-ns"])
                    Merganser.longest_turn = turn.beside(Merganser.longest_turn)
        except (Failure, OSError):
            pass # what it failed with before is what counts
        finally:
            super().close()

    def command(self, image, *more, keys=""):
        """With a simulated guest at the disk when `more` says what it should do."""
        where = "virtio" if "-guest" in more else "none"
        return [MERGANSER, "-monitor", "none", "-qmp", f"unix:{self.path},server=on,wait=off",
                "-drive", f"file={image},if={where},id=virtio0,format=qcow2{keys}", *more]


class MerganserReader(Merganser):
    def command(self, image, *more, keys=""):
        return super().command(image, *more, keys=keys + ",readonly=on")


class Qemu(Emulator):
    name = "QEMU"

    def command(self, image, *more):
        return [QEMU, "-display", "none", "-nodefaults", "-S", "-object", "iothread,id=thread",
                "-drive", f"file={image},if=none,id=virtio0,format=qcow2,aio=io_uring,l2-cache-size={L2_CACHE}",
                "-device", "virtio-blk,drive=virtio0,iothread=thread,share-rw=on",
                "-qmp", f"unix:{self.path},server=on,wait=off", *more]


class Server:
    """An image behind NBD, without an emulator around it where the program can do without."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class MerganserServer(Server):
    name = "merganser"

    def __init__(self, image, writable=False):
        self.emulator = (Merganser if writable else MerganserReader)(image)
        try:
            self.uri = self.emulator.export(writable)
        except BaseException:
            self.emulator.close()
            raise
        self.process = self.emulator.process
        os.system(f"taskset -apc 0 {self.process.pid} >/dev/null")

    def memory(self):
        return self.emulator.memory()

    def written(self):
        return self.emulator.written()

    def close(self):
        self.emulator.close()


class SocketServer(Server):
    """A program that does nothing but serve a socket in a folder of its own."""

    def start(self, command):
        """`command(path)`: the words that serve the socket `path`, which this returns when it is there."""
        self.folder = tempfile.TemporaryDirectory(prefix="merganser-bench-")
        path = os.path.join(self.folder.name, "nbd")
        self.process = subprocess.Popen(command(path), stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not os.path.exists(path):
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise Failure(f"{self.name} did not start")
            time.sleep(0.005)
        return path

    def close(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


class QemuServer(SocketServer):
    name = "qemu-nbd"

    def __init__(self, image, writable=False):
        path = self.start(lambda path: pinned(0, [
            QEMU_NBD, "-k", path, "-t", "-e", "64", "-x", "virtio0", *([] if writable else ["-r"]), "--aio=io_uring", "--image-opts",
            f"driver=qcow2,file.driver=file,file.aio=io_uring,file.filename={os.path.abspath(image)},"
            f"l2-cache-size={L2_CACHE}"]))
        self.uri = f"nbd+unix:///virtio0?socket={path}"

    memory = Emulator.memory
    written = Emulator.written


class BareServer(SocketServer):
    """The least that a server can do: nbdkit with one of its plugins."""

    name = "nbdkit"

    def __init__(self, *plugin):
        self.uri = "nbd+unix:///?socket=" + self.start(lambda path: ["nbdkit", "-f", "-U", path, *plugin])

    def export(self):
        return self.uri


def fio(*words, seconds=0, cpu=1, log=None):
    """One job of fio; its report as an object.  `log`: a prefix for a file of single latencies."""
    limit = ["--time_based", f"--runtime={seconds}"] if seconds else []
    logs = [f"--write_lat_log={log}", "--log_unix_epoch=1"] if log else []
    command = ["fio", "--name=job", "--output-format=json", "--randrepeat=1", "--percentile_list=50:99:99.9",
               *limit, *logs, *words]
    out = subprocess.run(pinned(cpu, command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                         timeout=600, check=False)
    if out.returncode:
        raise Failure(f"fio: {out.stderr or out.stdout}")
    return json.loads(out.stdout[out.stdout.index("{"):])["jobs"][0]


def over_nbd(uri):
    return ["--ioengine=nbd", f"--uri={uri}"]


def iops(job):
    return job["read"]["iops"] + job["write"]["iops"]
