#!/usr/bin/env python3
"""Measures a worker that has nothing to do; dev/idle prepares what it needs.

usage: idle.py SLUICE DIR SECONDS     DIR has the folders alone, with-redis, full, each with worker.yaml and connectors/
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

# Until what a start leaves behind has gone: timers, buffers, connections for questions.
SETTLE_SECONDS = 10
ROUNDS = 5


class Worker:
    def __init__(self, sluice, folder, *more):
        with open(os.path.join(folder, "worker.yaml"), encoding="utf-8") as file:
            self.http = re.search(r'listen: "([^"]+)"', file.read())[1]
        command = [sluice, "run", "--config", f"{folder}/worker.yaml", "--connectors", f"{folder}/connectors", *more]
        with open(os.path.join(folder, "sluice.log"), "ab") as log:
            self.started = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.proc = f"/proc/{self.process.pid}"

    def metrics(self):
        """Each metric, summed over its labels."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5) as answer:
            sums = {}
            for line in answer.read().decode().splitlines():
                found = re.match(r"([a-z_]+)(?:\{.*\})? (\S+)$", line)
                if found:
                    sums[found[1]] = sums.get(found[1], 0) + float(found[2])
            return sums

    def until(self, true, pause=0.005):
        """Seconds from the start until the metrics are as wanted."""
        while time.monotonic() < self.started + 60:
            if self.process.poll() is not None:
                sys.exit(f"error: the worker ended with status {self.process.returncode}")
            try:
                if true(self.metrics()):
                    return time.monotonic() - self.started
            except OSError:
                pass
            time.sleep(pause)
        sys.exit("error: the worker is not there after a minute")

    def cpu_seconds(self):
        spent = 0
        for thread in os.listdir(f"{self.proc}/task"):
            with open(f"{self.proc}/task/{thread}/schedstat", encoding="ascii") as file:
                spent += int(file.read().split()[0])
        return spent / 1e9

    def rss_mb(self, kind="VmRSS"):
        with open(f"{self.proc}/status", encoding="ascii") as file:
            return int(re.search(kind + r":\s+(\d+)", file.read())[1]) * 1024 / 1e6

    def descriptors(self):
        return len(os.listdir(f"{self.proc}/fd"))

    def sent(self):
        """Segments with data that each connection sent, by the peer's port: a small request is one, a script of Redis one or two."""
        listing = subprocess.run(["ss", "-tinpHO"], check=True, capture_output=True, text=True).stdout
        sent = {}
        for line in listing.splitlines():
            if f"pid={self.process.pid}," in line:
                here, there = line.split()[3:5]
                segments = re.search(r"data_segs_out:(\d+)", line)
                sent[here, there.rsplit(":", 1)[1]] = int(segments[1]) if segments else 0
        return sent

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


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


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
