# SPDX-License-Identifier: GPL-2.0-or-later
"""Rounds of a long test: what scripts/soak and its like share.

A round is played in an empty directory, which is removed afterwards (or kept, when the round was bad). The end comes when so
many were played, when time is over, or with a signal; what was played until then is counted, and the last line is
`N rounds, M bad`.
"""
import argparse
import collections
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import chain

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


class Parser(argparse.ArgumentParser):
    """--help is the script's own text; what is wrong is said in one line."""

    def __init__(self, doc):
        super().__init__(add_help=False)
        self.doc = doc
        self.add_argument("--help", "-h", action="store_true")

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (try --help)\n")

    def parse_args(self, args=None, namespace=None):
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(self.doc, end="")
            sys.exit(0)
        return super().parse_args(args, namespace)


def positive(kind):
    """For the parser: a number above zero."""
    def number(text):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"'{text}' is not above zero")
        return value
    number.__name__ = kind.__name__
    return number


def find_program(parser):
    """$MERGANSER, or build/merganser, which is made."""
    if "MERGANSER" not in os.environ:
        subprocess.run([os.path.join(TOP, "scripts", "build")], check=True)
        os.environ["MERGANSER"] = os.path.join(TOP, "build", "merganser")
    os.environ["MERGANSER"] = os.path.realpath(os.environ["MERGANSER"])
    if not os.access(os.environ["MERGANSER"], os.X_OK):
        parser.error(f"$MERGANSER: {os.environ['MERGANSER']} is no program")


def end_children():
    """Also the one that an interrupt came before we knew of."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        for pid in map(int, children.read().split()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def count_words(counts):
    return ", ".join(f"{n} {name}" for name, n in counts.items())


class Rounds:
    """play(seed, counts) is the round: it raises chain.Bad, and adds to counts (a Counter). again: the line that plays it
    once more, for a seed."""

    def __init__(self, what, play, again, base=None):
        self.what, self.play, self.again, self.base = what, play, again, base
        self.played = self.bad = 0
        self.total = collections.Counter()
        self.place = None

    def one(self, seed, keep, quiet):
        here = os.path.join(self.place, str(seed))
        counts, why, started = collections.Counter(), None, time.monotonic()
        os.mkdir(here)
        os.chdir(here)
        try:
            self.play(seed, counts)
        except (chain.Bad, subprocess.CalledProcessError) as bad:
            why = str(bad)
        except Exception as bad:  # noqa: BLE001 (a broken test must not pass for a good one)
            why = f"{type(bad).__name__}: {bad}"
        finally:
            end_children()
            os.chdir("/")
        self.played += 1
        self.bad += why is not None
        self.total.update(counts)
        if why or not quiet:
            counted = count_words(counts) + ", " if counts else ""
            print(f"seed {seed}: {counted}{time.monotonic() - started:.1f} s, {'BAD: ' + why if why else 'good'}", flush=True)
        if why:
            print(f"  again: {self.again(seed)}" + (f"\n  images: {here}" if keep else ""), flush=True)
        if not (why and keep):
            shutil.rmtree(here)

    def run(self, first, number=math.inf, minutes=math.inf, keep=False, quiet=False):
        """The exit code."""
        signal.signal(signal.SIGINT, interrupted)
        signal.signal(signal.SIGTERM, interrupted)
        started = time.monotonic()
        self.place = tempfile.mkdtemp(prefix=f"merganser-{self.what}.", dir=self.base)
        try:
            while self.played < number and time.monotonic() < started + minutes * 60:
                self.one(first + self.played, keep, quiet)
        except KeyboardInterrupt:
            print("interrupted: the round that was on its way does not count")
            shutil.rmtree(os.path.join(self.place, str(first + self.played)), ignore_errors=True)
        if not os.listdir(self.place):
            os.rmdir(self.place)
        counted = ": " + count_words(self.total) if self.total else ""
        if self.played:
            print(f"seeds {first} to {first + self.played - 1} in {time.monotonic() - started:.0f} s{counted}")
        print(f"{self.played} rounds, {self.bad} bad")
        return 1 if self.bad or not self.played else 0


def interrupted(_signal, _frame):
    raise KeyboardInterrupt
