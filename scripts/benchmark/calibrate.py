# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine itself can do, to read the figures by."""

import os
import platform
import subprocess
import time

from benchmark import images
from benchmark.images import GIB, MIB
from benchmark.programs import QEMU, BareServer, fio, iops, over_nbd


def best(runs, work):
    return max(work() for _ in range(runs))


def memcpy():
    source, target = bytearray(256 * MIB), bytearray(256 * MIB)
    view = memoryview(target)

    def work():
        start = time.monotonic()
        view[:] = source
        return 256 / (time.monotonic() - start)
    return best(4, work)


def copy(source, target, durable):
    size = os.path.getsize(source) / MIB

    def work():
        start = time.monotonic()
        images.run("cp", "--reflink=never", "--sparse=never", source, target)
        if durable:
            images.run("sync", target)
        took = time.monotonic() - start
        os.unlink(target)
        images.run("sync", "-f", os.path.dirname(target))
        return size / took
    return best(3, work)


def disk(target, size):
    """The device, past the page cache."""
    job = fio("--ioengine=io_uring", "--rw=write", "--bs=1M", "--iodepth=8", "--direct=1", f"--size={size}",
              f"--filename={target}")
    os.unlink(target)
    return job["write"]["bw_bytes"] / MIB


def round_trip(seconds):
    """One request at a time to a server that does nothing."""
    with BareServer("memory", "1G") as server:
        return iops(fio("--rw=randread", "--bs=4k", "--iodepth=1", "--size=1G", *over_nbd(server.uri), seconds=seconds))


def calibrate(root, source, seconds):
    """`source`: a large file of data."""
    target = os.path.join(root, "calibrate.img")
    images.warm(os.path.dirname(source))
    return {
        "memcpy, MiB/s": memcpy(),
        "cp, MiB/s": copy(source, target, False),
        "cp and sync, MiB/s": copy(source, target, True),
        "disk write, O_DIRECT, MiB/s": disk(target, os.path.getsize(source) // MIB * MIB),
        "4 KiB pread() from the page cache, IOPS": iops(
            fio("--ioengine=psync", "--rw=randread", "--bs=4k", f"--filename={source}", "--readonly", "--invalidate=0",
                f"--size={os.path.getsize(source) // MIB}M", seconds=seconds)),
        "4 KiB over NBD from nbdkit's memory, one at a time, IOPS": round_trip(seconds),
    }


def machine(root):
    cpu = "?"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    kind = subprocess.run(["stat", "-f", "-c", "%T", root], capture_output=True, text=True, check=True).stdout.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return {"processor": f"{os.cpu_count()} x {cpu}", "memory": f"{memory:.0f} GiB", "kernel": platform.release(),
            "file system": kind, "beside": version}
