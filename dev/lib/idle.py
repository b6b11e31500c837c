#!/usr/bin/env python3
"""Measures a worker that has nothing to do; dev/idle prepares what it needs.

usage: idle.py SLUICE DIR SECONDS     DIR has the folders alone, with-redis, full, open, each with worker.yaml and connectors/,
                                      and what loadgen says of the records of the last, open.json
"""

import json
import os
import shutil
import statistics
import sys
import time

from worker import Worker

# Until what a start leaves behind has gone: timers, buffers, connections for questions.
SETTLE_SECONDS = 10
ROUNDS = 5


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
    """Seconds from the start after a kill -9 until `records`, which were all open, have been read again."""
    def done(metrics):
        return metrics.get("sluice_records_read_total", 0) >= records

    worker = Worker(sluice, folder)
    worker.until(done, 0.02)
    worker.process.kill()
    worker.process.wait(60)
    worker = Worker(sluice, folder)
    seconds = worker.until(done, 0.02)
    worker.stop()
    return seconds


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
    seconds, megabytes = restarted(sluice, f"{folder}/open", load["records"]), load["bytes"] / 1e6
    print(f"restart after kill -9 with {megabytes:.0f} MB open: {seconds:.2f} s until they are read again, {megabytes / seconds:.0f} MB/s")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
