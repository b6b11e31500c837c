#!/usr/bin/env python3
"""Prints one table of the runs of dev/bench-peers.

usage: peers_table.py DIR..     each with run.json (system, codec, kills), load.json (loadgen), cost.json (measure), verdict.json, and
                                killed-1.json.. with the verdicts on the files of runs that were killed once
"""

import json
import os
import sys

HEAD = ("system", "codec", "GB in", "wall s", "CPU s", "CPU s/GB", "peak RSS MB", "objects", "MB stored", "dup/lost", "kills", "after them dup/lost", "left over")


def read(folder, name):
    with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
        return json.load(file)


def counted(verdicts):
    return "/".join(f"{sum(verdict[name] for verdict in verdicts):,}" for name in ("duplicates", "lost"))


def row(folder):
    run, load, cost, verdict = (read(folder, name) for name in ("run", "load", "cost", "verdict"))
    killed = [read(folder, f"killed-{i}") for i in range(1, run["kills"] + 1)]
    gigabytes = load["bytes"] / 1e9
    cpu = cost["user_seconds"] + cost["system_seconds"]
    return (
        run["system"],
        run["codec"],
        f"{gigabytes:.2f}",
        f"{cost['wall_seconds']:.1f}",
        f"{cpu:.1f}",
        f"{cpu / gigabytes:.1f}",
        f"{cost['peak_rss_bytes'] / 1e6:,.0f}",
        f"{verdict['objects']:,}",
        f"{verdict['bytes_stored'] / 1e6:,.0f}",
        counted([verdict]),
        str(len(killed)),
        counted(killed) if killed else "",
        f"{sum(len(verdict['other_objects']) for verdict in killed):,}" if killed else "",
    )


def main(folders):
    rows = [HEAD, tuple("-" * len(name) for name in HEAD), *map(row, folders)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        fill = "-" if cells is rows[1] else " "
        # Names to the left, figures to the right.
        print("| " + " | ".join(cell.ljust(width, fill) if at < 2 else cell.rjust(width, fill) for at, (cell, width) in enumerate(zip(cells, widths))) + " |")
    for folder in folders:
        run = read(folder, "run")
        for name in ("verdict", *(f"killed-{i}" for i in range(1, run["kills"] + 1))):
            for problem in read(folder, name)["problems"]:
                print(f"NOT SO: {run['system']}, {run['codec']}, {name}: {problem}")


if __name__ == "__main__":
    main(sys.argv[1:])
