# SPDX-License-Identifier: GPL-2.0-or-later
"""The images that the cases work on: each is made once from a recipe, by QEMU's own tools, and kept.

A recipe is a function of this file with its arguments.  It makes its files in an empty directory whose name is the
recipe, so that another size is another directory; a directory that was not finished is made again.  Every recipe returns
nothing and leaves the image to begin with as `chain.img`; no recipe writes zeroes where it says "data".
"""

import hashlib
import os
import random
import shutil
import subprocess

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
CLUSTER = 64 * KIB


def run(*words, **more):
    subprocess.run([str(w) for w in words], check=True, stdin=subprocess.DEVNULL, **more)


def qemu_io(image, lines):
    """Many writes in one process, without what lies below being opened."""
    subprocess.run(["qemu-io", "-f", "qcow2", image], input="\n".join(lines) + "\n", text=True, check=True,
                   stdout=subprocess.DEVNULL)


def create(image, size, backing=None, options=""):
    below = ["-u", "-b", backing, "-F", "qcow2"] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else []), *below, image, size)


def put_on(image, backing):
    run("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", image)


def fill(image, size, start=0):
    qemu_io(image, [f"write -q -P {n % 250 + 1} {start + n * 4 * MIB} {min(4 * MIB, size - n * 4 * MIB)}"
                    for n in range((size + 4 * MIB - 1) // (4 * MIB))])


# --- Recipes ----------------------------------------------------------------------------------------------------------

def flat(size):
    """One image full of data."""
    create("chain.img", size)
    fill("chain.img", size)


def deep(depth, size):
    """The data of one disk, dealt out cluster by cluster to `depth` layers."""
    for layer in range(depth):
        name = "chain.img" if layer == depth - 1 else f"layer-{layer}.img"
        create(name, size)
        qemu_io(name, [f"write -q -P {n % 250 + 1} {n * CLUSTER} {CLUSTER}"
                       for n in range(layer, size // CLUSTER, depth)])
        if layer:
            put_on(name, f"layer-{layer - 1}.img")


def sparse(size, data):
    """Pieces of one cluster, scattered over a large disk."""
    chance = random.Random(1)
    count = data // CLUSTER
    step = size // count
    create("chain.img", size)
    qemu_io("chain.img", [f"write -q -P {n % 250 + 1} {n * step + chance.randrange(step // CLUSTER) * CLUSTER} {CLUSTER}"
                          for n in range(count)])


def two(size):
    """A full base, and on it a full layer."""
    create("base.img", size)
    fill("base.img", size)
    create("chain.img", size)
    fill("chain.img", size // 2, size // 2)
    fill("chain.img", size // 2)
    put_on("chain.img", "base.img")


def zeroes(size):
    """Data and clusters of zeroes by turns, 1 MiB each, over a base full of data."""
    create("base.img", size)
    fill("base.img", size)
    create("chain.img", size)
    qemu_io("chain.img", [f"write -q {f'-P {n % 250 + 1}' if n % 2 else '-z'} {n * MIB} {MIB}"
                          for n in range(size // MIB)])
    put_on("chain.img", "base.img")


def compressed(size, kind):
    """What compresses to about a third: words drawn by chance."""
    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randrange(2, 10))) for _ in range(3000)]
    pool = " ".join(chance.choices(words, k=700000)).encode("ascii")
    with open("content.raw", "wb") as raw:
        for _ in range(size // CLUSTER):
            at = chance.randrange(len(pool) - CLUSTER)
            raw.write(pool[at:at + CLUSTER])
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "content.raw", "chain.img")
    os.unlink("content.raw")


def layers(depth, size):
    """A chain of that many layers with a little data each."""
    for layer in range(depth):
        name = "chain.img" if layer == depth - 1 else f"layer-{layer}.img"
        create(name, size)
        qemu_io(name, [f"write -q -P {layer % 250 + 1} {layer * (size // depth) // CLUSTER * CLUSTER} {CLUSTER}"])
        if layer:
            put_on(name, f"layer-{layer - 1}.img")


# --- Keeping them -----------------------------------------------------------------------------------------------------

def prepare(root, recipe, *arguments):
    """The directory in which chain.img lies.  Made unless it is there."""
    name = "-".join([recipe.__name__, *map(str, arguments)])
    folder = os.path.join(root, name)
    if os.path.isdir(folder):
        return folder
    unfinished = folder + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(unfinished)
    print(f"Making {name}", flush=True)
    here = os.getcwd()
    os.chdir(unfinished)
    try:
        recipe(*arguments)
    finally:
        os.chdir(here)
    run("sync", "-f", unfinished)
    os.rename(unfinished, folder)
    return folder


def warm(folder):
    """All of it into the page cache, and nothing left to be written."""
    os.sync()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            buffer = bytearray(4 * MIB)
            while file.readinto(buffer):
                pass


def content_hash(image):
    """A hash of what a guest would read, by QEMU's own reader.  Zeroes do not count, wherever they come from."""
    raw = image + ".raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-S", "4k", image, raw)
    digest = hashlib.blake2b()
    with open(raw, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(b"%d" % size)
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at -= at % CLUSTER
            piece = os.pread(file.fileno(), CLUSTER, at)
            if piece.strip(b"\0"):
                digest.update(b"%d:" % at)
                digest.update(piece)
            at += CLUSTER
    os.unlink(raw)
    return digest.hexdigest()
