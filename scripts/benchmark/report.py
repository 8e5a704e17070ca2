# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures into a table for people and an object for programs."""

import json
import statistics

BETTER_WHEN_HIGHER = ("MiB/s", "IOPS", "cores")


def number(value):
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Result:
    """The runs of one variant."""

    def __init__(self, case, variant):
        self.case, self.variant = case, variant
        self.ours, self.theirs = [], []
        self.failure = None
        self.longest_turn = None   # programs.Turn, of our loop in all runs

    def ratio(self):
        """How many times better we are: above 1 is good whatever the unit."""
        if not self.theirs or not self.ours:
            return None
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        if not ours or not theirs:
            return None
        return ours / theirs if self.variant.unit in BETTER_WHEN_HIGHER else theirs / ours

    def row(self):
        def cell(runs):
            if not runs:
                return "-"
            return f"{number(statistics.median(runs))} ({number(min(runs))}-{number(max(runs))})"
        ratio = self.ratio()
        name = f"{self.case}: {self.variant.name}" if self.variant.name else self.case
        if self.failure:
            return [name, self.variant.unit, "FAILED", "", "", self.variant.goal]
        return [name, self.variant.unit, cell(self.ours), f"{cell(self.theirs)} {self.variant.against}"
                if self.theirs else "-", f"{ratio:.2f}" if ratio else "-", self.variant.goal]

    def to_json(self):
        return {"case": self.case, "variant": self.variant.name, "unit": self.variant.unit,
                "goal": self.variant.goal, "against": self.variant.against, "ours": self.ours,
                "theirs": self.theirs, "ratio": self.ratio(), "failure": self.failure,
                "longest_turn": self.longest_turn._asdict()}


HEAD = ["case", "unit", "merganser", "beside", "times better", "goal"]


def table(results):
    """Markdown, so that docs/PERFORMANCE.md can keep it as it is."""
    rows = [HEAD] + [result.row() for result in results]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def turns(results):
    """The longest turn of our loop in each case, as text; empty when nobody has told one."""
    longest = {}
    for result in results:
        longest[result.case] = result.longest_turn.beside(longest.get(result.case, result.longest_turn))
    return "\n".join(f"{case}: longest turn of merganser's loop: {turn}" for case, turn in longest.items() if turn.ns)


def save(path, machine, calibration, results):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": machine, "calibration": calibration,
                   "results": [result.to_json() for result in results]}, file, indent=1)
        file.write("\n")
