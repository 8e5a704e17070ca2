# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains for tests of whole lives: made from a random seed, and judged from outside.

What is in an image is asked of the real qemu-img alone. A sector is good when it holds what it held at first, zeroes where
a guest trims, or a stamp that a guest wrote for this very place (hw/guest-verify.h); callers may know better for some.
"""
import os
import struct
import subprocess

SIZE = 24 << 20
SECTOR = 512
PIECE = 64 << 10
ZEROES = bytes(SECTOR)
KINDS = ("cluster_size=64k", "cluster_size=4k", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "compat=0.10",
         "refcount_bits=1")


class Bad(Exception):
    """Something that must hold does not."""


def tool(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def layer_size(rnd, first):
    return SIZE if first or rnd.random() < 0.8 else SIZE - (rnd.randrange(1, 8) << 20)


def scribble(rnd, size):
    """What qemu-io is to do so that an image holds something of its own."""
    words = []
    for _ in range(6):
        length = rnd.randrange(1, 2000) * SECTOR
        offset = rnd.randrange(0, (size - length) // SECTOR) * SECTOR
        how = f"-P {rnd.randrange(1, 255)}" if rnd.random() < 0.8 else "-z"
        words += ["-c", f"write -q {how} {offset} {length}"]
    return words


def make(rnd, letters):
    """file-A.img and so on, each on the one before. Returns the content that a guest will find."""
    script, backing = [], None
    for letter in letters:
        name, size = f"file-{letter}.img", layer_size(rnd, backing is None)
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", rnd.choice(KINDS),
             *(["-b", backing, "-F", "qcow2"] if backing else []), name, str(size))
        script += ["-c", f"open -o driver=qcow2 {name}", *scribble(rnd, size), "-c", "close"]
        backing = name
    tool("qemu-io", *script)
    return content(backing)


def content(image):
    """All that a guest can read, in one string."""
    tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, "content.raw")
    with open("content.raw", "rb") as raw:
        data = raw.read()
    os.remove("content.raw")
    return data


def check(image, leaks=False):
    """qemu-img finds nothing wrong (leaks: but clusters that nobody uses)."""
    run = subprocess.run(("qemu-img", "check", "-f", "qcow2", image), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if run.returncode != 0 and not (leaks and run.returncode == 3):
        raise Bad(f"qemu-img check {image}: {run.returncode}\n" + run.stdout.decode(errors="replace")[:2000])


def is_stamp(sector, address):
    return sector[:8] == b"MGSTAMP1" and struct.unpack_from("<Q", sector, 8)[0] == address


def judge_sector(sector, address, before, profile, trims):
    if sector == before[address:address + SECTOR] or (profile == "stamp" and is_stamp(sector, address)):
        return True
    return trims and sector == ZEROES


def judge(now, before, profile, trims=False, known=None):
    """Compare a disk's content with that at first. known: {address: what such a sector may hold}."""
    known = known or {}
    pieces = {address // PIECE for address in known}
    if len(now) != len(before):
        raise Bad(f"the disk has {len(now)} bytes instead of {len(before)}")
    for start in range(0, len(now), PIECE):
        if start // PIECE not in pieces and now[start:start + PIECE] == before[start:start + PIECE]:
            continue
        for address in range(start, min(start + PIECE, len(now)), SECTOR):
            sector = now[address:address + SECTOR]
            if address in known:
                good = sector in known[address]
            else:
                good = judge_sector(sector, address, before, profile, trims)
            if not good:
                raise Bad(f"sector at {address} holds {sector[:24].hex()}..., neither the old content nor any written since")
