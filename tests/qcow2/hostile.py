# SPDX-License-Identifier: GPL-2.0-or-later
#
# Hostile qcow2 images, made by changing one or two words of a sound one, and judged by the real qemu-img:
#
#   * what qemu-img cannot compare with the sound image, merganser-img refuses too, in one sentence (a hint may follow);
#   * what both can read holds the same for both; merganser-img may refuse more, since it is the stricter reader;
#   * the image is not changed, and neither program is needed for longer than LIMIT seconds.
#
#   python3 hostile.py MERGANSER_IMG VERSION   makes and judges all rows of that version, in the current directory
import concurrent.futures
import os
import shutil
import struct
import subprocess
import sys

LIMIT = 10
CLUSTER = 4096
SIZE = 8 << 20
TOP = (1 << 64) - 1
# Where qemu-img refuses for these words, and merganser-img reads the disk's content all the same: why that is right.
MORE_LENIENT = {
    "itmap": "bitmaps say nothing about content; we never read them, and the first write makes them inconsistent",
}


def tool(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def sound(path, version):
    """Data, zeroes, a compressed cluster, a snapshot; with version 3 a bitmap and an unknown extension's place as well."""
    compat = "0.10" if version == 2 else "1.1"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=%d,compat=%s" % (CLUSTER, compat), path, str(SIZE))
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -c -P 2 128k 4k", "-c", "write -P 3 4M 8k", path)
    tool("qemu-img", "snapshot", "-c", "one", path)
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 4 0 8k", path)
    if version == 3:
        tool("qemu-io", "-f", "qcow2", "-c", "write -z 2M 64k", path)
        tool("qemu-img", "bitmap", "--add", path, "marks")


class Image:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()

    def word(self, at, width):
        return int.from_bytes(self.bytes[at:at + width], "big")

    def with_words(self, words):
        changed = bytearray(self.bytes)
        for at, width, value in words:
            changed[at:at + width] = (value & ((1 << (8 * width)) - 1)).to_bytes(width, "big")
        return bytes(changed)


def offsets(image, old):
    """What an offset may be: nothing, odd, another table's, beyond the end, wrapping."""
    tables = [image.word(at, 8) for at in (40, 48, 64)]
    end = (len(image.bytes) + CLUSTER - 1) // CLUSTER * CLUSTER
    return sorted({0, 1, 512, CLUSTER, old + 1, old + 512, *tables, end, end + CLUSTER, 1 << 40, 1 << 55, 1 << 56, 1 << 62,
                   1 << 63, TOP - CLUSTER + 1, TOP} - {old})


def counts(old):
    return sorted({0, 1, old + 1, 2 * old + 2, 1 << 16, 65537, 1 << 25, 1 << 31, (1 << 32) - 1} - {old})


def entries(image, old):
    """An entry of a table: offsets, and the flags around them."""
    flags = [old ^ (1 << bit) for bit in (0, 1, 5, 9, 55, 56, 61, 62, 63)]
    return sorted(set(offsets(image, old)) | set(flags) | {(1 << 63) | value for value in offsets(image, old)[:6]})


def header_rows(image, version):
    fields = {"backing-offset": (8, 8), "l1-offset": (40, 8), "reftable-offset": (48, 8), "snapshots-offset": (64, 8)}
    for name, (at, width) in fields.items():
        for value in offsets(image, image.word(at, width)):
            yield "%s=%#x" % (name, value), [(at, width, value)]
            if name == "backing-offset":
                yield "%s=%#x,size=9" % (name, value), [(at, width, value), (16, 4, 9)]
    for name, at in {"l1-size": 36, "reftable-clusters": 56, "snapshots": 60, "backing-size": 16}.items():
        for value in counts(image.word(at, 4)):
            yield "%s=%d" % (name, value), [(at, 4, value)]
    for value in [0, 1, 8, 9, 10, 11, 13, 16, 20, 21, 22, 32, 63, 64, 1 << 31, (1 << 32) - 1]:
        yield "cluster-bits=%d" % value, [(20, 4, value)]
    for value in [0, 1, 511, 512, SIZE - 512, SIZE + 512, 1 << 40, 1 << 56, 1 << 62, 1 << 63, TOP]:
        yield "size=%#x" % value, [(24, 8, value)]
    for value in [1, 2, 3, TOP]:
        yield "crypt=%d" % value, [(32, 4, value)]
    for value in [0, 1, 5 - version, 4, 1 << 31, (1 << 32) - 1]:
        yield "version=%d" % value, [(4, 4, value)]
    # Version 2 ends before these: there they are extensions, or nothing.
    for bits in [1, 2, 3, 4, 8, 16, 32, 1 << 63, TOP]:
        yield "incompatible=%#x" % bits, [(72, 8, bits)]
    for bits in [1, 2, TOP]:
        yield "compatible=%#x" % bits, [(80, 8, bits)]
        yield "autoclear=%#x" % bits, [(88, 8, bits)]
    for value in [0, 1, 5, 6, 7, 31, 32, 63, (1 << 32) - 1]:
        yield "refcount-order=%d" % value, [(96, 4, value)]
    for value in [0, 71, 72, 103, 104, 105, 111, 112, 120, CLUSTER, CLUSTER + 8, (1 << 32) - 1]:
        yield "header-length=%d" % value, [(100, 4, value)]
    for value in [1, 2, 255]:
        yield "compression=%d" % value, [(104, 1, value)]
        yield "compression=%d,bit" % value, [(104, 1, value), (72, 8, 8)]


def table_rows(image):
    l1, reftable = image.word(40, 8), image.word(48, 8)
    l2 = image.word(l1, 8) & 0x00fffffffffffe00
    for name, at in {"l1[0]": l1, "l2[0]": l2, "l2[2]": l2 + 16, "l2[32]-compressed": l2 + 32 * 8}.items():
        for value in entries(image, image.word(at, 8)):
            yield "%s=%#x" % (name, value), [(at, 8, value)]
    for value in offsets(image, image.word(reftable, 8)):
        yield "reftable[0]=%#x" % value, [(reftable, 8, value)]


def compressed_rows(image):
    """A descriptor says where a stream begins and how many sectors more than one it spans: all lengths, and the ends."""
    at = (image.word(image.word(40, 8), 8) & 0x00fffffffffffe00) + 32 * 8
    old, shift = image.word(at, 8), 62 - 4
    place = old & ((1 << shift) - 1)
    for sectors in range(16):
        yield "compressed-sectors=%d" % sectors, [(at, 8, 1 << 62 | sectors << shift | place)]
    for place in [0, 1, len(image.bytes) - 1, len(image.bytes), len(image.bytes) + 512, (1 << shift) - 1]:
        yield "compressed-place=%#x" % place, [(at, 8, 1 << 62 | 1 << shift | place)]


def snapshot_rows(image):
    at = image.word(64, 8)
    for value in offsets(image, image.word(at, 8)):
        yield "snapshot.l1-offset=%#x" % value, [(at, 8, value)]
    for value in counts(image.word(at + 8, 4)):
        yield "snapshot.l1-size=%d" % value, [(at + 8, 4, value)]
    for name, offset, width in [("id-size", 12, 2), ("name-size", 14, 2), ("extra-size", 36, 4)]:
        for value in [0, 1, 15, 16, 1023, 1024, 1025, (1 << (8 * width - 1)), (1 << (8 * width)) - 1]:
            yield "snapshot.%s=%d" % (name, value), [(at + offset, width, value)]


def bitmap_rows(image):
    ext = image.bytes.find(bytes.fromhex("23852875"), 104)
    assert ext > 0
    for value in counts(image.word(ext + 8, 4)):
        yield "bitmaps=%d" % value, [(ext + 8, 4, value)]
    for value in [0, 1, 1 << 16, 1 << 40, 1 << 63, TOP]:
        yield "bitmaps.directory-size=%#x" % value, [(ext + 16, 8, value)]
    for value in offsets(image, image.word(ext + 24, 8)):
        yield "bitmaps.directory-offset=%#x" % value, [(ext + 24, 8, value)]
    directory = image.word(ext + 24, 8)
    for value in offsets(image, image.word(directory, 8)):
        yield "bitmap.table-offset=%#x" % value, [(directory, 8, value)]
    for name, offset, width in [("table-size", 8, 4), ("flags", 12, 4), ("type", 16, 1), ("granularity", 17, 1),
                                ("name-size", 18, 2), ("extra-size", 20, 4)]:
        for value in [0, 1, 63, 64, (1 << (8 * width - 1)), (1 << (8 * width)) - 1]:
            yield "bitmap.%s=%d" % (name, value), [(directory + offset, width, value)]


def rows(image, version):
    for name, words in [*header_rows(image, version), *table_rows(image), *compressed_rows(image), *snapshot_rows(image),
                        *(bitmap_rows(image) if version == 3 else [])]:
        yield name, image.with_words(words)
    for length in range(0, len(image.bytes), 512):
        yield "cut=%d" % length, image.bytes[:length]


def compare(program, sound_file, hostile_file):
    words = [program, "compare", "-f", "qcow2", "-F", "qcow2", sound_file, hostile_file]
    try:
        done = subprocess.run(words, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return -1, "takes longer than %d s" % LIMIT
    return done.returncode, done.stderr.decode(errors="backslashreplace")


def judge(merganser_img, sound_file, row):
    """What is wrong with a row: nothing (None), or a line."""
    number, (name, content) = row
    path = "row-%d.img" % number
    with open(path, "wb") as file:
        file.write(content)
    theirs, their_words = compare("qemu-img", sound_file, path)
    with open(path, "wb") as file: # qemu-img may have marked it
        file.write(content)
    ours, words = compare(merganser_img, sound_file, path)
    if words.startswith("qcow2: Image is corrupt: "): # qemu-img says that, too, and goes on to its sentence
        words = words.split("\n", 1)[1]
    with open(path, "rb") as file:
        changed = file.read() != content
    os.unlink(path)
    if changed:
        return "%s: the image was changed" % name
    if ours < 0 or ours > 4: # 2 to 4: cannot be opened, mapped, read
        return "%s: ended with %d: %s" % (name, ours, words)
    if ours >= 2 and not (words.startswith("merganser-img: ") and words.count("\n") <= 2):
        return "%s: not one sentence: %r" % (name, words)
    lenient = theirs >= 2 and any(reason in their_words for reason in MORE_LENIENT)
    if ours < 2 and theirs not in (ours, -1) and not lenient:
        return "%s: %d, but qemu-img %d: %s" % (name, ours, theirs, their_words.strip())
    return None


def main():
    merganser_img, version = sys.argv[1], int(sys.argv[2])
    sound("sound.img", version)
    image = Image("sound.img")
    table = list(enumerate(rows(image, version)))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        wrong = [line for line in pool.map(lambda row: judge(merganser_img, "sound.img", row), table) if line]
    print("\n".join(wrong))
    print("%d rows, %d wrong" % (len(table), len(wrong)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
