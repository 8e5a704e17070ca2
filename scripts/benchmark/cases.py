# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured.

A case is a generator of variants.  A variant has a name, a unit, a goal (the ratio to reach, in words), and `ours` and `theirs`:
functions without arguments that do the work once, check the result's content, and return the figure.  The runner calls them in
turn: ours, theirs, ours, theirs.  `theirs` may be something other than QEMU (a plain read loop), and `None` where there is
nothing to compare with.
"""

import os
import re
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, Optional

from benchmark import images
from benchmark.images import CLUSTER, GIB, KIB, MIB, TIB
from benchmark.programs import (BareServer, Failure, Merganser, MerganserServer, Qemu, QemuServer, fio, iops, over_nbd)


@dataclass
class Variant:
    name: str
    unit: str               # the higher the better, unless it is a time, bytes, or a factor
    goal: str
    ours: Callable[[], float]
    theirs: Optional[Callable[[], float]]
    against: str = "QEMU"


class Scale:
    """Sizes and times; --quick has small ones, --size is for trying the script itself."""

    def __init__(self, root, quick, size=None):
        self.root = root
        self.quick = quick
        self.full = size or (256 * MIB if quick else 2 * GIB)
        self.part = self.full // 2
        self.depths = [1, 64] if quick else [1, 8, 64, 500]
        self.seconds = 1 if quick else 3

    def image(self, recipe, *arguments):
        return images.prepare(self.root, recipe, *arguments)


def seconds(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def of_runs(run):
    """Several figures of the same runs: what this returns makes a function that picks one of them, and whose n-th call is about
    the n-th run."""
    done = {}

    def figure(pick):
        calls = {}

        def value(emulator):
            n = calls[emulator] = calls.get(emulator, 0) + 1
            runs = done.setdefault(emulator, [])
            if n > len(runs):
                runs.append(run(emulator))
            return pick(runs[n - 1])
        return value
    return figure


def new_top(top, size, options=""):
    if os.path.exists(top):
        os.unlink(top)
    images.create(top, size, "chain.img", options)
    images.warm(os.path.dirname(top))


# --- Streams ----------------------------------------------------------------------------------------------------------

class Stream:
    """Streams of one chain into a new, empty overlay."""

    def __init__(self, folder, data, base=None):
        self.folder, self.data, self.base = folder, data, base
        self.top = os.path.join(folder, "top.img")
        self.judged = {}

    def prepare(self):
        if os.path.exists(self.top):
            os.unlink(self.top)
        images.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "chain.img", "-F", "qcow2", self.top)
        images.warm(self.folder)

    def reference(self):
        """The content before; taken once for each set of images."""
        kept = os.path.join(self.folder, "content.hash")
        if not os.path.exists(kept):
            value = images.content_hash(os.path.join(self.folder, "chain.img"))
            with open(kept, "w", encoding="ascii") as file:
                file.write(value)
        with open(kept, encoding="ascii") as file:
            return file.read()

    def judge(self, name):
        """Once a program: the result alone has the content, and is clean."""
        backing = subprocess.run(["qemu-img", "info", "-U", self.top], capture_output=True, text=True, check=True).stdout
        if ("backing file:" in backing) != bool(self.base):
            raise Failure(f"{name} left the wrong backing file")
        if self.judged.get(name):
            return
        if subprocess.run(["qemu-img", "check", "-q", self.top], check=False).returncode:
            raise Failure(f"{name} left an image that is not clean")
        if images.content_hash(self.top) != self.reference():
            raise Failure(f"{name} changed the content")
        self.judged[name] = True

    def run(self, emulator, *more):
        """MiB of data a second, from the command until the result is durable."""
        self.reference()
        self.prepare()
        arguments = {"base": self.base} if self.base else {}
        with emulator(self.top, *more) as program:
            before = program.processor()
            start = time.monotonic()
            program.execute("block-stream", device="virtio0", **arguments)
            program.wait_job()
            if emulator is Qemu: # its event comes before; ours is the promise
                program.monitor("qemu-io virtio0 flush")
            took = time.monotonic() - start
            self.processor = (program.processor() - before) / took
        self.judge(emulator.name)
        os.unlink(self.top)
        return self.data / MIB / took

    def variant(self, name, goal):
        return Variant(name, "MiB/s", goal, lambda: self.run(Merganser), lambda: self.run(Qemu))


def copy_flat(stream):
    source = os.path.join(stream.folder, "chain.img")
    target = os.path.join(stream.folder, "copy.img")

    def work():
        stream.prepare()
        took = seconds(lambda: images.run("cp", "--reflink=never", "--sparse=never", source, target))
        os.unlink(target)
        os.unlink(stream.top)
        return stream.data / MIB / took
    return work


def copy_flat_durable(stream):
    source = os.path.join(stream.folder, "chain.img")
    target = os.path.join(stream.folder, "copy.img")

    def both():
        images.run("cp", "--reflink=never", "--sparse=never", source, target)
        images.run("sync", target)

    def work():
        stream.prepare()
        took = seconds(both)
        os.unlink(target)
        os.unlink(stream.top)
        return stream.data / MIB / took
    return work


def stream_flat(scale):
    stream = Stream(scale.image(images.flat, scale.full), scale.full)
    yield stream.variant("", ">= 3 x QEMU")
    yield Variant("beside cp", "MiB/s", ">= 0.85 x cp", lambda: stream.run(Merganser), copy_flat(stream), "cp")
    yield Variant("beside cp and sync", "MiB/s", "", lambda: stream.run(Merganser), copy_flat_durable(stream),
                  "cp + sync")


def stream_deep(scale):
    for depth in scale.depths:
        stream = Stream(scale.image(images.deep, depth, scale.part), scale.part)
        yield stream.variant(f"{depth} layers", ">= 3 x QEMU; 64 layers >= 0.7 of one")


def stream_sparse(scale):
    size, data = (64 * GIB, scale.part // 2) if scale.quick else (TIB, scale.part)
    stream = Stream(scale.image(images.sparse, size, data), data)
    yield stream.variant("", ">= 10 x QEMU")


def stream_intermediate(scale):
    stream = Stream(scale.image(images.two, scale.part), scale.part, "base.img")
    yield stream.variant("", ">= 3 x QEMU")


def stream_zero(scale):
    stream = Stream(scale.image(images.zeroes, scale.part), scale.part)
    yield stream.variant("", ">= 3 x QEMU, zeroes cost nothing")


def stream_compressed(scale):
    for kind in ("zlib", "zstd"):
        stream = Stream(scale.image(images.compressed, scale.part // 2, kind), scale.part // 2)
        yield stream.variant(kind, ">= 3 x QEMU")

        def cores(emulator, stream=stream):
            stream.run(emulator)
            return stream.processor
        yield Variant(f"{kind}, processors busy", "cores", "both", lambda c=cores: c(Merganser),
                      lambda c=cores: c(Qemu))


# --- Reads through the chain ------------------------------------------------------------------------------------------

class Reads:
    """Servers stay up over all runs of a depth, and have been read once before the first figure."""

    def __init__(self, folder, size):
        self.folder, self.size = folder, size
        self.servers = {}
        self.hashes = {}

    def server(self, kind):
        if kind not in self.servers:
            images.warm(self.folder)
            server = kind(os.path.join(self.folder, "chain.img"))
            self.servers[kind] = server
            fio("--rw=read", "--bs=1M", "--iodepth=8", f"--size={self.size}", *over_nbd(server.uri))
            self.hashes[kind.name] = subprocess.run(
                ["sh", "-c", f"nbdcopy '{server.uri}' - | b2sum"], capture_output=True, text=True, check=True).stdout
            if len(set(self.hashes.values())) > 1:
                raise Failure("the two servers show different content")
        return self.servers[kind]

    def measure(self, kind, pattern, size, queue, unit, run_seconds):
        server = self.server(kind)
        job = fio(f"--rw={pattern}", f"--bs={size}", f"--iodepth={queue}", f"--size={self.size}",
                  *over_nbd(server.uri), seconds=run_seconds)
        return iops(job) if unit == "IOPS" else job["read"]["bw_bytes"] / MIB

    def close(self):
        for server in self.servers.values():
            server.close()
        self.servers = {}


def depth_read(scale):
    for depth in scale.depths:
        reads = Reads(scale.image(images.deep, depth, scale.part), scale.part)
        try:
            for pattern, size, unit in (("randread", "4k", "IOPS"), ("read", "1M", "MiB/s")):
                for queue in (1, 32):
                    def work(kind, reads=reads, words=(pattern, size, queue, unit, scale.seconds)):
                        return reads.measure(kind, *words)
                    yield Variant(f"{depth} layers, {pattern} {size}, queue {queue}", unit,
                                  "within 5 % of 1 layer; 64 layers, queue 32: >= 5 x; 1 layer: >= 1 x",
                                  lambda w=work: w(MerganserServer), lambda w=work: w(QemuServer), "qemu-nbd")
        finally:
            reads.close()


# --- The guest inside -------------------------------------------------------------------------------------------------

def guest_rate(scale, image, pattern, queue, interface="virtio"):
    """Requests a second that the simulated guest completes."""
    words = f"profile=stamp,rw={pattern},bs=4k,iodepth={queue},size=100%,rate_iops=0"
    with (MerganserIde if interface == "ide" else Merganser)(image, "-guest", words) as program:
        operations = "wr_operations" if "write" in pattern else "rd_operations"

        def count():
            return program.execute("query-blockstats")[0]["stats"][operations]
        time.sleep(0.5)
        start, first = time.monotonic(), count()
        time.sleep(scale.seconds)
        last, end = count(), time.monotonic()
        told = program.monitor("info guest")
        if not re.search(r"mismatches=0 errors=0 ", told):
            raise Failure(f"the guest saw wrong data: {told}")
        return (last - first) / (end - start)


class MerganserIde(Merganser):
    def command(self, image, *more, keys=""):
        return [word.replace("if=virtio", "if=ide") for word in super().command(image, *more, keys=keys)]


def pread_loop(folder, scale):
    image = os.path.join(folder, "chain.img")
    images.warm(folder)
    return iops(fio("--ioengine=psync", "--rw=randread", "--bs=4k", f"--filename={image}", f"--size={scale.part}",
                    "--readonly", "--invalidate=0", seconds=scale.seconds))


def pwrite_loop(folder, scale):
    """Into a copy that was made as the guest's is: what a write costs depends on how large the cache's pages are."""
    image = os.path.join(folder, "work.img")
    shutil.copyfile(os.path.join(folder, "chain.img"), image)
    try:
        return iops(fio("--ioengine=psync", "--rw=randwrite", "--bs=4k", f"--filename={image}", f"--size={scale.part}",
                        "--invalidate=0", "--norandommap", seconds=scale.seconds))
    finally:
        os.unlink(image)


def nbd_rate(folder, scale, pattern, queue):
    image = os.path.join(folder, "work.img")
    shutil.copyfile(os.path.join(folder, "chain.img"), image)
    try:
        with MerganserServer(image, True) as server:
            words = [f"--rw={pattern}", "--bs=4k", f"--iodepth={queue}", f"--size={scale.part}"]
            return iops(fio(*words, *over_nbd(server.uri), seconds=scale.seconds))
    finally:
        os.unlink(image)


def guest(scale, pattern):
    folder = scale.image(images.flat, scale.part)

    def ours(queue, interface="virtio"):
        image = os.path.join(folder, "work.img")
        shutil.copyfile(os.path.join(folder, "chain.img"), image)
        try:
            return guest_rate(scale, image, pattern, queue, interface)
        finally:
            os.unlink(image)

    for queue in (1, 32):
        yield Variant(f"virtio, queue {queue}", "IOPS", ">= 5 x the NBD path", lambda q=queue: ours(q),
                      lambda q=queue: nbd_rate(folder, scale, pattern, q), "our NBD")
    if pattern == "randread":
        yield Variant("virtio, queue 32, beside pread()", "IOPS", "half of a pread loop", lambda: ours(32),
                      lambda: pread_loop(folder, scale), "pread")
    else:
        yield Variant("virtio, queue 32, beside pwrite()", "IOPS", "", lambda: ours(32),
                      lambda: pwrite_loop(folder, scale), "pwrite")
    yield Variant("IDE DMA", "IOPS", "", lambda: ours(1, "ide"), None)


def guest_read(scale):
    return guest(scale, "randread")


def guest_write(scale):
    return guest(scale, "randwrite")


# --- Writes into an empty overlay -------------------------------------------------------------------------------------

def cow_alloc(scale):
    folder = scale.image(images.flat, scale.full)
    top = os.path.join(folder, "top.img")
    hashes = {}
    factor = {}

    def work(kind, options):
        count = 2000 if scale.quick else 100000 if "extended" in options else 20000 # a second, or most of one
        new_top(top, scale.full, options)
        with kind(top, True) as server:
            before = server.written()
            job = fio("--rw=randwrite", "--bs=4k", "--iodepth=16", f"--size={scale.full}", "--norandommap",
                      f"--number_ios={count}", "--buffer_pattern=0x5a", *over_nbd(server.uri))
            factor[kind, options] = (server.written() - before) / (count * 4 * KIB)
        hashes[kind] = images.content_hash(top)
        if len(set(hashes.values())) > 1:
            raise Failure("the two programs wrote different content")
        os.unlink(top)
        return iops(job)

    for name, options in (("64 KiB", "cluster_size=64k"), ("2 MiB", "cluster_size=2M"),
                          ("64 KiB, extended L2", "cluster_size=64k,extended_l2=on")):
        yield Variant(name, "IOPS", ">= 1.5 x qemu-nbd", lambda o=options: work(MerganserServer, o),
                      lambda o=options: work(QemuServer, o), "qemu-nbd")

        def amount(kind, options=options):
            if (kind, options) not in factor:
                work(kind, options)
            return factor[kind, options]
        yield Variant(f"{name}, bytes written per byte", "x", "", lambda a=amount: a(MerganserServer),
                      lambda a=amount: a(QemuServer), "qemu-nbd")
        hashes.clear()


# --- Guests under jobs ------------------------------------------------------------------------------------------------

class Latencies:
    """fio's log of single requests: when (ms since the epoch), and how long (us)."""

    def __init__(self, prefix):
        self.entries = []
        for name in sorted(os.listdir(os.path.dirname(prefix))):
            path = os.path.join(os.path.dirname(prefix), name)
            if path.startswith(prefix) and "_clat" in name:
                with open(path, encoding="ascii") as file:
                    for line in file:
                        at, took = line.split(",")[:2]
                        self.entries.append((int(at) / 1000, int(took) / 1000))
                os.unlink(path)
            elif path.startswith(prefix):
                os.unlink(path)

    def between(self, start, end):
        return sorted(took for at, took in self.entries if start <= at <= end)


def percentile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def with_guest(scale, folder, emulator, total, action):
    """Runs `action(program)` a while after a guest has begun, and gives (idle, busy) latencies in us."""
    top = os.path.join(folder, "top.img")
    prefix = os.path.join(folder, "latency")
    span = {}

    new_top(top, total)
    with emulator(top) as program:
        uri = program.export()
        client = subprocess.Popen(
            ["taskset", "-c", "1", "fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw",
             "--rwmixread=70", "--bs=4k", "--iodepth=16", "--rate_iops=1400,600", "--rate_process=poisson",
             f"--size={total}", "--time_based", f"--runtime={8 if scale.quick else 14}", "--norandommap",
             f"--write_lat_log={prefix}", "--log_unix_epoch=1", "--output=/dev/null"], stdin=subprocess.DEVNULL)
        try:
            time.sleep(3)
            span["idle"] = (time.time() - 2, time.time())
            start = time.time()
            action(program)
            span["busy"] = (start, time.time())
            time.sleep(1)
            span["after"] = (start, time.time())
        finally:
            client.terminate()
            client.wait()
    latencies = Latencies(prefix)
    os.unlink(top)
    return {name: latencies.between(*when) for name, when in span.items()}, span["busy"][1] - span["busy"][0]


def guest_beside_copy(scale, folder):
    """What the machine leaves any guest while the same bytes are copied past the page cache: the server has no part in it."""
    source, target, disk = (os.path.join(folder, name) for name in ("chain.img", "copy.img", "disk.raw"))
    try:
        for name, size in ((target, os.path.getsize(source)), (disk, scale.full)):
            with open(name, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        return with_guest(scale, folder, lambda top: BareServer("file", disk), scale.full, lambda server: images.run(
            "dd", f"if={source}", f"of={target}", "bs=512k", "oflag=direct", "conv=notrunc,fdatasync", "status=none"))[0]
    finally:
        for name in (target, disk):
            if os.path.exists(name):
                os.unlink(name)


def guest_figures(spans):
    busy = percentile(spans["busy"], 0.99)
    return {"p99 during the job": busy,
            "p99 during the job / idle": busy / percentile(spans["idle"], 0.99),
            "longest stall": spans["after"][-1] / 1000}


def guest_under_job(scale):
    folder = scale.image(images.flat, scale.full)
    alone = Stream(folder, scale.full)

    def stream(program):
        program.execute("block-stream", device="virtio0")
        program.wait_job()

    def run(emulator):
        spans, took = with_guest(scale, folder, emulator, scale.full, stream)
        return {**guest_figures(spans), "job's time / alone": took / (scale.full / MIB / alone.run(emulator))}

    figure = of_runs(run)
    for name, unit, goal in (("p99 during the job", "us", "below QEMU's"), ("p99 during the job / idle", "x", "<= 1.5"),
                             ("longest stall", "ms", "< 5 ms"), ("job's time / alone", "x", "<= 1.2")):
        value = figure(lambda found, name=name: found[name])
        yield Variant(name, unit, goal, lambda v=value: v(Merganser), lambda v=value: v(Qemu))

    bare = of_runs(lambda _: guest_figures(guest_beside_copy(scale, folder)))
    for name, unit in (("p99 during the job", "us"), ("p99 during the job / idle", "x"), ("longest stall", "ms")):
        value, other = (of(lambda found, name=name: found[name]) for of in (figure, bare))
        yield Variant(f"{name}, beside a bare server while dd copies", unit, "", lambda v=value: v(Merganser),
                      lambda v=other: v(BareServer), "nbdkit + dd")


def bare_flushes(folder, count):
    """The longest of what a guest has to wait for whoever takes the snapshots: a cluster that was written into an overlay is made
    durable, after the overlay and its name were."""
    times = []
    names = [os.path.join(folder, f"snapshot-{n}.img") for n in range(count)]
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            file = os.open(name, os.O_RDWR | os.O_CREAT)
            os.pwrite(file, bytes(3 * CLUSTER), 0)
            os.fsync(file)
            os.fsync(directory)
            start = time.monotonic()
            os.pwrite(file, bytes(CLUSTER), 3 * CLUSTER)
            os.fdatasync(file)
            times.append(time.monotonic() - start)
            os.close(file)
    finally:
        os.close(directory)
        for name in names:
            if os.path.exists(name):
                os.unlink(name)
    return max(times) * 1000


def snapshot_latency(scale):
    folder = scale.image(images.flat, scale.part)
    count = 50 if scale.quick else 500
    names = [os.path.join(folder, f"snapshot-{n}.img") for n in range(count)]
    tenth = max(count // 10, 1)

    def run(emulator):
        times = []

        def action(program):
            for name in names:
                times.append(seconds(lambda: program.execute(
                    "blockdev-snapshot-sync", device="virtio0", **{"snapshot-file": name, "format": "qcow2"})))
        try:
            found = with_guest(scale, folder, emulator, scale.part, action)[0]
        finally:
            for name in names:
                if os.path.exists(name):
                    os.unlink(name)
        return {"longest stall of the guest": found["busy"][-1] / 1000,
                "last tenth / first tenth": statistics.median(times[-tenth:]) / statistics.median(times[:tenth]),
                "one snapshot": statistics.median(times) * 1000}

    figure = of_runs(run)
    for name, unit, goal in (("longest stall of the guest", "ms", "< 5 ms"),
                             ("last tenth / first tenth", "x", "1: constant in depth"), ("one snapshot", "ms", "")):
        value = figure(lambda found, name=name: found[name])
        yield Variant(f"{count}: {name}", unit, goal, lambda v=value: v(Merganser), lambda v=value: v(Qemu))
        if name == "longest stall of the guest":
            yield Variant(f"{count}: {name}, beside fdatasync()", unit, "", lambda n=name: run(Merganser)[n],
                          lambda: bare_flushes(folder, count), "fdatasync")


# --- Opening, memory --------------------------------------------------------------------------------------------------

def open_(scale):
    for depth, goal in ((1, "5 ms"), (64, "10 ms"), (500, "60 ms"), (1000, "")):
        if scale.quick and depth > 64:
            break
        folder = scale.image(images.layers, depth, GIB)

        def work(command, folder=folder):
            images.warm(folder)
            here = os.path.join(folder, "chain.img")
            start = time.monotonic()
            program = subprocess.Popen([word.replace("IMAGE", here) for word in command], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            program.stdin.write(b"info status\n")
            program.stdin.flush()
            line = b"x"
            while line and b"VM status" not in line:
                line = program.stdout.readline()
            took = time.monotonic() - start
            program.communicate(b"quit\n", timeout=60)
            if not line:
                raise Failure("no prompt")
            return took * 1000

        from benchmark.programs import MERGANSER, QEMU
        ours = [MERGANSER, "-guest", "profile=none", "-drive", "file=IMAGE,if=virtio,format=qcow2"]
        theirs = [QEMU, "-display", "none", "-nodefaults", "-S", "-monitor", "stdio", "-drive",
                  "file=IMAGE,if=virtio,format=qcow2"]
        yield Variant(f"{depth} layers", "ms", goal, lambda w=work, c=ours: w(c),
                      (lambda w=work, c=theirs: w(c)) if depth <= 500 else None)


def memory(scale):
    for depth in (1, 64) if scale.quick else (1, 64, 500):
        folder = scale.image(images.deep, depth, scale.part)

        def work(kind, folder=folder):
            images.warm(folder)
            with kind(os.path.join(folder, "chain.img")) as server:
                fio("--rw=read", "--bs=64k", "--iodepth=8", f"--size={scale.part}", *over_nbd(server.uri))
                fio("--rw=randread", "--bs=4k", "--iodepth=8", f"--size={scale.part}", *over_nbd(server.uri), seconds=1)
                return server.memory()[0] / 1024
        yield Variant(f"{depth} layers, all read once", "MiB", "<= 16 at 1, <= 24 at 500",
                      lambda w=work: w(MerganserServer), lambda w=work: w(QemuServer), "qemu-nbd")


CASES = {
    "stream-flat": stream_flat, "stream-deep": stream_deep, "stream-sparse": stream_sparse,
    "stream-intermediate": stream_intermediate, "stream-zero": stream_zero, "stream-compressed": stream_compressed,
    "depth-read": depth_read, "guest-read": guest_read, "guest-write": guest_write, "cow-alloc": cow_alloc,
    "guest-under-job": guest_under_job, "snapshot-latency": snapshot_latency, "open": open_, "memory": memory,
}
