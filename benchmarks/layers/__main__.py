"""Measure channel layers beside those of a peer, in one run, and print tables.

    python -m benchmarks.layers                          every case, ours
    python -m benchmarks.layers kill restart             some cases
    python -m benchmarks.layers --peer /path/to/venv     channels_redis from its own environment

Each row has a broker of its own on a free port, which writes nothing to disk and ends with the row;
each member is a process of its own.  Counts and times are bounded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.layers.brokers import BROKERS
from benchmarks.layers.cases import CASES, Case, Row
from benchmarks.layers.contenders import OURS, Contender, peers
from benchmarks.layers.server import NotInstalled
from benchmarks.layers.stage import Stuck, stage


def rows(case: Case, contenders: list[Contender], scale: float) -> Iterator[tuple[Contender, Row]]:
    """The rows of a case's table, as they are found."""
    for contender in contenders:
        if case.name in BROKERS[contender.broker].unfit:
            continue
        try:
            with stage(contender, case.kills) as found:
                messages = max(10, int(case.messages * scale))
                for row in case.play(found, messages, contender.is_ours):
                    yield contender, {"layer": contender.name, **row}
        except NotInstalled as missing:
            print(f"{case.name}, {contender.name}: left out without {missing}", file=sys.stderr)
        except Stuck as stuck:
            print(f"{case.name}, {contender.name}: {stuck}", file=sys.stderr)
            yield contender, {"layer": contender.name, "stuck": True}


def verdict(case: Case, contender: Contender, row: Row) -> str:
    if not contender.is_ours:
        return "stuck" if "stuck" in row else ""
    if "stuck" not in row and case.holds(row):
        return "met"
    return "not promised" if case.name in contender.unpromised else "MISSED"


def show(case: Case, found: Iterator[tuple[Contender, Row]]) -> int:
    """A table in Markdown; how many rows of ours missed the goal."""
    columns: list[str] = []
    missed = 0
    for contender, row in found:
        row["goal"] = verdict(case, contender, row)
        missed += row["goal"] == "MISSED"
        if not columns:
            print(f"\n**{case.name}**: {case.about}. Goal: {case.goal}.\n")
            columns = list(row)
            print(line(columns))
            print(line(["---"] * len(columns)).replace(" ", ""))
        print(line([row.get(column, "") for column in columns]), flush=True)
    return missed


def line(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def show_as_json(case: Case, found: Iterator[tuple[Contender, Row]]) -> int:
    missed = 0
    for contender, row in found:
        row["goal"] = verdict(case, contender, row)
        missed += row["goal"] == "MISSED"
        print(json.dumps({"case": case.name, **row}), flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--peer", type=peers, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--layer", action="append", metavar="NAME", help="only this one")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of messages")
    parser.add_argument("--json", action="store_true", help="one object per line, no tables")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(names):
        parser.error(f"no case is named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    contenders = [*OURS, *(contender for group in chosen.peer for contender in group)]
    known = {each.name: each for each in contenders}
    if unknown := set(chosen.layer or ()) - known.keys():
        parser.error(f"no layer is named {', '.join(unknown)}; there are {', '.join(known)}")
    contenders = [known[name] for name in chosen.layer or known]
    missed = 0
    print(f"Load at the start: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    for case in CASES:
        if not chosen.cases or case.name in chosen.cases:
            display = show_as_json if chosen.json else show
            missed += display(case, rows(case, contenders, chosen.scale))
    print(f"Load at the end: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
