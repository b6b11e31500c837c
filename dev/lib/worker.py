"""A worker that is watched from outside: its metrics, its memory, its CPU time, its connections."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request


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

    def is_at_end(self):
        """Every partition is read to its end; none is empty."""
        with urllib.request.urlopen(f"http://{self.http}/status", timeout=5) as answer:
            tasks = json.load(answer)["tasks"]
        partitions = [partition for task in tasks for partition in task["partitions"].values()]
        return bool(partitions) and all(0 < (one["end"] or 0) == one["position"] for one in partitions)

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
