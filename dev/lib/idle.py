#!/usr/bin/env python3
"""Measures a worker that has nothing to do; dev/idle prepares what it needs.

usage: idle.py SLUICE DIR SECONDS     DIR has the folders alone, with-redis, full, open, each with worker.yaml and connectors/,
                                      and what loadgen says of the records of the last, open.json
"""

import json
import os
import shutil
import signal
import statistics
import sys
import time

from worker import Worker

# Until what a start leaves behind has gone: timers, buffers, connections for questions, looks at a group that may be moving.
SETTLE_SECONDS = 45
ROUNDS = 5
# Until the spool's journal says where a restart would read, and until no buffer is left that is only in memory.
FLOOR_SECONDS = 7
LONGEST_BUFFERED_SECONDS = 195


def watch(sluice, folder, seconds, services):
    worker = Worker(sluice, folder)
    worker.until(lambda metrics: any(name.startswith("sluice_lag_records") for name in metrics), 0.1)
    time.sleep(SETTLE_SECONDS)
    metrics, sent, began = worker.metrics(), worker.sent(), time.monotonic()
    cpu = worker.cpu_seconds()
    time.sleep(seconds)
    cpu = worker.cpu_seconds() - cpu
    period = time.monotonic() - began
    now = worker.sent()
    row = {"RSS MB": f"{worker.rss_mb():.1f}", "of it not of files": f"{worker.rss_mb('RssAnon'):.1f}"}
    row["CPU % of a core"] = f"{cpu / period * 100:.3f}"
    row["descriptors"] = str(worker.descriptors())
    for name, port in services.items():
        count = sum(count - sent.get(key, 0) for key, count in now.items() if key[1] == port)
        row[f"segments/s to {name}"] = f"{count / period:.2f}"
    after = worker.metrics()
    for name in "sluice_upload_requests_total", "sluice_log_appends_total":
        row[name.removeprefix("sluice_").removesuffix("_total").replace("_", " ")] = f"{after.get(name, 0) - metrics.get(name, 0):.0f}"
    worker.stop()
    return row


def caught_up(sluice, folder, anew):
    """Wall and CPU seconds of --until-caught-up, by round; `anew`: each time into an empty place."""
    spent = []
    for _ in range(ROUNDS):
        if anew:
            shutil.rmtree(f"{folder}/archive")
            os.mkdir(f"{folder}/archive")
        worker = Worker(sluice, folder, "--until-caught-up")
        _, status, usage = os.wait4(worker.process.pid, 0)
        if status:
            sys.exit(f"error: --until-caught-up ended with {os.waitstatus_to_exitcode(status)}")
        spent.append((time.monotonic() - worker.started, usage.ru_utime + usage.ru_stime))
    return spent


def restarted(sluice, folder, records):
    """For each way to end a worker that has `records` open: seconds from the next start until it is at the live end again, and how
    many records it has read again by then."""

    def is_read(metrics):
        return metrics.get("sluice_records_read_total", 0) >= records

    rows = {}
    worker = Worker(sluice, folder)
    worker.until(is_read, 0.02)
    for name, wait, end in (
        ("kill -9 soon after a burst", FLOOR_SECONDS, signal.SIGKILL),
        ("kill -9 later", LONGEST_BUFFERED_SECONDS, signal.SIGKILL),
        ("a stop", 0, signal.SIGTERM),
        ("a stop, the spool is lost", 0, signal.SIGTERM),
    ):
        time.sleep(wait)
        worker.process.send_signal(end)
        worker.process.wait(60)
        if name.endswith("lost"):
            shutil.rmtree(f"{folder}/spool")
        worker = Worker(sluice, folder)
        seconds = worker.until(lambda _: worker.is_at_end(), 0.02)
        rows[name] = seconds, worker.metrics().get("sluice_records_read_total", 0)
    worker.stop()
    return rows


def port(address):
    return address.split(",")[0].rstrip("/").rsplit(":", 1)[1]


def main(sluice, folder, seconds):
    services = {"Kafka": port(os.environ["SLUICE_TEST_KAFKA"]), "Redis": port(os.environ["SLUICE_TEST_REDIS"])}
    rows = {name: watch(sluice, f"{folder}/{name}", float(seconds), services) for name in ("alone", "with-redis")}
    names = list(rows["alone"])
    print("| worker | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row[column] for column in names) + " |")
    rounds = {
        "--until-caught-up with nothing to do": caught_up(sluice, f"{folder}/alone", False),
        # The first fetched record is earlier than that.
        "--until-caught-up with 1,000 records into an empty place": caught_up(sluice, f"{folder}/full", True),
    }
    print()
    for name, spent in rounds.items():
        walls, cpus = zip(*spent)
        print(f"{name}: {statistics.median(walls):.2f} s (least {min(walls):.2f}), CPU {min(cpus):.2f} s")
    with open(f"{folder}/open.json", encoding="utf-8") as file:
        load = json.load(file)
    print(f"\nwith {load['bytes'] / 1e6:.0f} MB open, until a start is at the live end again:")
    for name, (seconds, again) in restarted(sluice, f"{folder}/open", load["records"]).items():
        print(f"{name}: {seconds:.2f} s, {again / load['records'] * 100:.1f} % of the records read again")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
