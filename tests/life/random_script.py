# SPDX-License-Identifier: GPL-2.0-or-later
"""A random script of an operator under two busy guests, and what is left of the disks.

play(seed) makes a chain of five differing layers and an IDE disk in the working directory, then plays snapshots, commits,
streams of every form, cancel, pause, resume, speeds, stop, cont, reset, quit and changes of the guests, all drawn from the
seed, on the virtual clock (or the real one). In the end every job has ended, the guests have seen what they wrote, qemu-img
check finds no fault in any image, and every sector of both disks is as it was or as a guest wrote it. $MERGANSER is the
program; `script` and `transcript` are what it was told and what it said. chain.Bad tells what does not hold.
"""
import os
import random
import subprocess

import chain

ENDS_WITHIN = 150
DISKS = ("virtio0", "ide0-hd0")
JOBS = DISKS + ("node-C", "node-D", "node-E")
BASES = ("file-A.img", "file-B.img", "file-C.img", "ide.img", "s0.img", "s1.img")
GUEST_WORDS = ("bs=512-64k", "iodepth=32", "rwmixread=20", "flush_every=10", "rw=write", "rw=randrw", "stop", "start")


def stream(rnd, disk):
    target = rnd.choice((disk, "node-C", "node-D", "node-E"))
    if rnd.random() < 0.4:
        return f"-block_stream {target} {rnd.choice(('0', '1M', '64k', '200k'))}"
    return f"-block_stream {target} {rnd.choice(('0', '500k', '5M'))} {rnd.choice(BASES)}"


def snapshot(disk, plan):
    name = f"s{len(plan['snapshots'])}.img"
    plan["snapshots"].append((disk, name))
    return [f"-snapshot_blkdev {disk} {name} qcow2"]


def guest(rnd, disk, plan):
    if plan["profile"] == "stamp" and rnd.random() < 0.15:
        plan["trims"] = True
        return [f"-guest {disk} rw=randtrimwrite"]
    return [f"-guest {disk} {rnd.choice(GUEST_WORDS)}"]


def line(rnd, plan):
    disk = rnd.choice(DISKS)
    rows = (
        (25, lambda: snapshot(disk, plan)),
        (30, lambda: [stream(rnd, disk)]),
        (4, lambda: [f"-commit {rnd.choice((disk, 'all'))}"]),
        (7, lambda: [f"-block_job_cancel {rnd.choice(('', '-f '))}{rnd.choice(JOBS)}"]),
        (6, lambda: [f"-block_job_pause {rnd.choice(JOBS)}"]),
        (6, lambda: [f"-block_job_resume {rnd.choice(JOBS)}"]),
        (4, lambda: [f"-block_job_set_speed {rnd.choice(JOBS)} {rnd.choice(('0', '64k', '10M'))}"]),
        (3, lambda: ["stop", f"sleep {rnd.randrange(1, 50)}ms", "cont"]),
        (2, lambda: ["stop", stream(rnd, disk), f"sleep {rnd.randrange(1, 50)}ms", "cont"]),
        (3, lambda: ["system_reset"]),
        (5, lambda: guest(rnd, disk, plan)),
        (13, lambda: [f"sleep {rnd.randrange(1, 400)}ms"]),
    )
    return rnd.choices([row[1] for row in rows], [row[0] for row in rows])[0]()


def make_script(rnd, plan):
    lines = []
    for _ in range(rnd.randrange(5, 25)):
        lines += line(rnd, plan)
    plan["quits"] = rnd.random() < 0.1
    if plan["quits"]:
        lines += ["quit"]
    lines += [f"-guest {disk} start" for disk in DISKS]
    lines += [f"-block_job_resume {job}" for job in JOBS]
    lines += [f"-block_job_set_speed {job} 0" for job in JOBS]
    lines += ["wait all done 100s", "info guest", "expect guest clean", "expect no jobs"]
    with open("script", "w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")


def options(rnd, plan):
    drive = f"file=file-E.img,if=virtio,format=qcow2,discard={rnd.choice(('unmap', 'ignore'))},node-name=node-E"
    for depth, letter in enumerate("DCBA", 1):
        drive += f",{'backing.' * depth}node-name=node-{letter}"
    guests = (f"profile={plan['profile']},rate_iops={rnd.choice((500, 3000, 20000))},"
              f"iodepth={rnd.choice((1, 8, 32))},size=24M,bs={rnd.choice(('4k', '512-16k'))},"
              f"flush_every={rnd.choice((0, 20))}")
    return ["-drive", drive, "-drive", "file=ide.img,if=ide,format=qcow2", "-guest", guests]


def top_of(disk, first, plan):
    """The image that the guest writes to: a snapshot that was refused leaves no file."""
    made = [name for owner, name in plan["snapshots"] if owner == disk and os.path.exists(name)]
    return made[-1] if made else first


def judge(plan, before):
    for name in sorted(os.listdir(".")):
        if name.endswith(".img"):
            chain.check(name)
    for disk, first in zip(DISKS, ("file-E.img", "ide.img")):
        top = top_of(disk, first, plan)
        chain.judge(chain.content(top), before[disk], plan["profile"], plan["trims"])


def play(seed, real=False):
    """In the working directory. Raises chain.Bad."""
    rnd = random.Random(seed)
    before = {"virtio0": chain.make(rnd, "ABCDE"), "ide0-hd0": bytes(chain.SIZE)}
    chain.tool("qemu-img", "create", "-q", "-f", "qcow2", "ide.img", str(chain.SIZE))
    plan = {"profile": rnd.choice(("stamp", "stamp", "preserve")), "snapshots": [], "trims": False}
    make_script(rnd, plan)
    clock = [] if real else ["--clock", "virtual"]
    with open("transcript", "w", encoding="ascii") as out:
        try:
            code = subprocess.run([os.environ["MERGANSER"], *clock, "--seed", str(seed), *options(rnd, plan), "-f", "script"],
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=ENDS_WITHIN, check=False).returncode
        except subprocess.TimeoutExpired as why:
            raise chain.Bad(f"no end within {ENDS_WITHIN} s") from why
    # 4: a job that was left paused waits for somebody.
    if code and not (code == 4 and plan["quits"]):
        raise chain.Bad(f"exit code {code}")
    judge(plan, before)
