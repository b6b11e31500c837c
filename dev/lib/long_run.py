#!/usr/bin/env python3
"""Watches a worker while a load lasts, judges whether anything grew, and draws it; dev/long-run prepares what it needs.

usage: long_run.py SLUICE DIR LOAD_PID OUTPUT RATE APPS INTERVAL
"""

import csv
import os
import sys
import time

from worker import Worker

# No part of a usual rotate.max_interval: samples must not always miss the moment of the rotation, or always meet it.
SAMPLE_SECONDS = 4.7
# Of the samples: what comes before belongs to the start.
WARM = 0.1
# Growth from the first to the last third of the rest that is still called flat, as a share and at least as an amount.
FLAT = {"RSS MB": (0.10, 5), "descriptors": (0.10, 5), "spool MB": (0.25, 5), "memory counted MB": (0.25, 10), "lag s": (0.5, 1)}


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def sample(worker, began, rate):
    metrics = worker.metrics()
    return {
        "minutes": (time.monotonic() - began) / 60,
        "RSS MB": worker.rss_mb(),
        "memory counted MB": metrics.get("sluice_memory_budget_used_bytes", 0) / 1e6,
        "spool MB": metrics.get("sluice_spool_used_bytes", 0) / 1e6,
        "descriptors": worker.descriptors(),
        "lag s": metrics.get("sluice_lag_records", 0) / rate,
        "CPU s": worker.cpu_seconds(),
        "objects": metrics.get("sluice_objects_total", 0),
    }


def watch(worker, load, rate):
    rows, began = [], time.monotonic()
    while is_running(load):
        rows.append(sample(worker, began, rate))
        time.sleep(SAMPLE_SECONDS)
    return rows


def judge(rows):
    """Prints a line for each series; whether all are flat. The highest counts: each rotation is a tooth of a saw, and where between
    two teeth the samples of a third happen to lie says nothing."""
    rows = rows[int(len(rows) * WARM) :]
    third = len(rows) // 3
    print("| highest in | the first third | the last third | flat |\n|---|---|---|---|")
    flat = True
    for name, (share, least) in FLAT.items():
        values = [row[name] for row in rows]
        first, last = max(values[:third]), max(values[-third:])
        grew = last - first > max(first * share, least)
        flat &= not grew
        print(f"| {name} | {first:.1f} | {last:.1f} | {'no' if grew else 'yes'} |")
    cpu = (rows[-1]["CPU s"] - rows[0]["CPU s"]) / (rows[-1]["minutes"] - rows[0]["minutes"]) / 60
    print(f"\n{rows[-1]['minutes']:.0f} minutes, {rows[-1]['objects']:.0f} objects, CPU {cpu * 100:.2f} % of a core")
    return flat


def draw(rows, title):
    """One strip for each series, over the same minutes."""
    width, height, left, right, top = 860, 92, 130, 20, 40
    names = list(FLAT)
    total = top + (height + 22) * len(names) + 24
    last = rows[-1]["minutes"]
    # Enough points for the picture, the highest of each few samples.
    step = max(1, len(rows) // 720)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{total}" fill="#ffffff"/>',
        f'<text x="{left}" y="22" font-size="14" fill="#222222">{title}</text>',
    ]
    for number, name in enumerate(names):
        y = top + number * (height + 22)
        most = max(row[name] for row in rows) * 1.1 or 1
        x_of = lambda minutes: left + minutes / last * (width - left - right)
        y_of = lambda value: y + height - value / most * height
        points = [max(rows[i : i + step], key=lambda row: row[name]) for i in range(0, len(rows), step)]
        line = " ".join(f"{x_of(row['minutes']):.1f},{y_of(row[name]):.1f}" for row in points)
        parts += [
            f'<rect x="{left}" y="{y}" width="{width - left - right}" height="{height}" fill="#f5f6f8"/>',
            f'<text x="{left - 8}" y="{y + height / 2 + 4}" text-anchor="end" fill="#222222">{name}</text>',
            f'<text x="{left - 8}" y="{y + 10}" text-anchor="end" fill="#777777">{most:.0f}</text>',
            f'<text x="{left - 8}" y="{y + height}" text-anchor="end" fill="#777777">0</text>',
            f'<polyline points="{line}" fill="none" stroke="#2463a5" stroke-width="1"/>',
        ]
    axis = top + len(names) * (height + 22)
    for tick in range(5):
        x = left + tick / 4 * (width - left - right)
        parts.append(f'<text x="{x:.0f}" y="{axis}" text-anchor="middle" fill="#777777">{last * tick / 4:.0f} min</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(sluice, folder, load, output, rate, apps, interval):
    worker = Worker(sluice, folder)
    worker.until(lambda metrics: "sluice_lag_records" in metrics, 0.1)
    rows = watch(worker, int(load), int(rate))
    worker.stop()
    if len(rows) < 10:
        sys.exit("error: the load ended before there was anything to judge")
    with open(f"{output}.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows({name: round(value, 3) for name, value in row.items()} for row in rows)
    title = f"{int(rate):,} records a second of {apps} apps, a file of each every {interval}, {time.strftime('%Y-%m-%d')}"
    with open(f"{output}.svg", "w", encoding="utf-8") as file:
        file.write(draw(rows, title))
    flat = judge(rows)
    print(f"plot: {output}.svg\nsamples: {output}.csv")
    sys.exit(0 if flat and worker.process.returncode == 0 else 1)


if __name__ == "__main__":
    if len(sys.argv) != 8:
        sys.exit(__doc__)
    main(*sys.argv[1:])
