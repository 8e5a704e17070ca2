# SPDX-License-Identifier: GPL-2.0-or-later
#
# The smallest inputs that reach most: for scripts/fuzz --merge.
#
#   python3 pick.py CORPUS CONTROL...
#
# CONTROL are libFuzzer's merge control files (-merge_control_file, -set_cover_merge=1): which input reaches what.  Renews the
# directory CORPUS: files with telling names stay; those whose names are twelve hexadecimal digits are chosen anew, the most new
# features for their size first, until PICKS are taken or nothing is gained.
import os
import re
import shutil
import sys

PICKS = 40
OVERHEAD = 64 # bytes that a file costs whatever is in it


def read_control(path):
    """{file: (size, features)}; what a merge that was stopped did not come to is missing."""
    with open(path, errors="replace") as file:
        lines = file.read().split("\n")
    count = int(lines[0])
    names, sizes, found = lines[2:2 + count], {}, {}
    for line in lines[2 + count:]:
        words = line.split()
        if words and words[0] == "STARTED":
            sizes[int(words[1])] = int(words[2])
        elif words and words[0] == "FT":
            found[names[int(words[1])]] = (sizes[int(words[1])], {int(word) for word in words[2:]})
    return found


def is_chosen(name):
    return re.fullmatch("[0-9a-f]{12}", os.path.basename(name)) is not None


def main():
    corpus, controls = sys.argv[1], sys.argv[2:]
    inputs = {}
    for path in controls:
        if os.path.exists(path) and os.path.getsize(path):
            inputs.update(read_control(path))
    telling = {name for name in os.listdir(corpus) if not is_chosen(name)}
    reached = set()
    for name in [name for name in inputs if os.path.basename(name) in telling]:
        reached |= inputs.pop(name)[1]
    if not inputs:
        return
    everything = reached.union(*(features for _, features in inputs.values()))
    for name in os.listdir(corpus):
        if is_chosen(name):
            os.unlink(os.path.join(corpus, name))
    for _ in range(PICKS):
        name = max(inputs, key=lambda n: len(inputs[n][1] - reached) / (inputs[n][0] + OVERHEAD), default=None)
        if name is None or not inputs[name][1] - reached:
            break
        reached |= inputs.pop(name)[1]
        shutil.copyfile(name, os.path.join(corpus, os.path.basename(name)[:12]))
    files = os.listdir(corpus)
    print("%s: %d inputs, %d bytes, %d of %d features" % (os.path.basename(corpus), len(files),
          sum(os.path.getsize(os.path.join(corpus, name)) for name in files), len(reached), len(everything)))


if __name__ == "__main__":
    main()
