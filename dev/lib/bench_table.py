#!/usr/bin/env python3
"""Prints one table of the runs of dev/bench.

usage: bench_table.py DIR..     each with run.json (settings), load.json (loadgen), cost.json (measure), verdict.json,
                                limit.json (benches/limit.rs), sluice.log
"""

import datetime
import json
import os
import re
import sys

# Between these lines of the log there are records to read.
FROM, UNTIL = "task taken over", "all is read"

HEAD = ("apps", "store", "codec", "GB in", "wall s", "MB/s", "CPU s", "CPU s/GB", "kernel s/GB", "cores", "busy %", "all %", "busy % while reading", "peak RSS MB", "files open", "objects", "log entries", "requests", "MB stored", "dup/lost", "exact", "limit", "x limit")


def busy_while_reading(folder, cost):
    """The share of the machine's cores that worker, broker and store were at work on while there were records, in %."""
    times = {}
    with open(os.path.join(folder, "sluice.log"), encoding="utf-8") as log:
        for line in log:
            for text in FROM, UNTIL:
                if text in line:
                    at = re.match(r"\S+", line).group()
                    times[text] = datetime.datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    inside = [sample for sample in cost["samples"] if times.get(FROM, 0) <= sample[0] <= times.get(UNTIL, 0)]
    # Of less than half a second the samples say nothing.
    if len(inside) < 5:
        return None
    (begin, before, _), (end, after, _) = inside[0], inside[-1]
    return (after - before) / (end - begin) / cost["cores"] * 100


def row(folder):
    parts = []
    for name in "run", "load", "cost", "verdict", "limit":
        with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
            parts.append(json.load(file))
    run, load, cost, verdict, limit = parts
    gigabytes = load["bytes"] / 1e9
    cpu = cost["user_seconds"] + cost["system_seconds"]
    # The share of the machine's cores that worker, broker and store were at work on, and that anything was.
    room = cost["cores"] * cost["wall_seconds"] / 100
    reading = busy_while_reading(folder, cost)
    # Without compression: up to the lane.
    least = limit["cpu_seconds_per_gb"]["lane" if run["codec"] == "none" else run["codec"]]
    return (
        f"{load['apps']:,}",
        run["store"],
        run["codec"],
        f"{gigabytes:.2f}",
        f"{cost['wall_seconds']:.1f}",
        f"{load['bytes'] / 1e6 / cost['wall_seconds']:.0f}",
        f"{cpu:.1f}",
        f"{cpu / gigabytes:.2f}",
        f"{cost['system_seconds'] / gigabytes:.2f}",
        f"{cpu / cost['wall_seconds']:.2f}",
        f"{(cpu + cost['beside_seconds']) / room:.0f}",
        f"{cost['machine_seconds'] / room:.0f}",
        "" if reading is None else f"{reading:.0f}",
        f"{cost['peak_rss_bytes'] / 1e6:.0f}",
        f"{cost['peak_descriptors']:,}",
        f"{verdict['objects']:,}",
        f"{run['log_entries']:,}",
        "" if run["requests"] is None else f"{run['requests']:,}",
        f"{verdict['bytes_stored'] / 1e6:,.0f}",
        f"{verdict['duplicates']:,}/{verdict['lost']:,}",
        "NO" if verdict["problems"] else "yes",
        f"{least:.2f}",
        f"{cpu / gigabytes / least:.2f}",
    )


def main(folders):
    rows = [HEAD, tuple("-" * len(name) for name in HEAD), *map(row, folders)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        fill = "-" if cells is rows[1] else " "
        print("| " + " | ".join(cell.rjust(width, fill) for cell, width in zip(cells, widths)) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
