#!/usr/bin/env python3
"""Runs a command and writes what it cost as JSON: wall, CPU seconds, peak memory, most open descriptors seen, exit status.

usage: measure.py OUTPUT [--beside PIDFILE].. COMMAND [ARGS..]

`--beside`: a service whose CPU seconds in that time are told too, and samples of [Unix time, CPU seconds so far of command and services,
of the machine]. SIGTERM is passed on, for commands that run until they are told to end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

SAMPLE_SECONDS = 0.1


class Sampler(threading.Thread):
    """Looks every now and then how many descriptors a process has open and, with services beside it, what CPU was used."""

    def __init__(self, pid, beside):
        super().__init__(daemon=True)
        self.pid, self.beside, self.over = pid, beside, threading.Event()
        self.most_descriptors, self.samples = 0, []

    def run(self):
        while not self.over.wait(SAMPLE_SECONDS):
            try:
                self.most_descriptors = max(self.most_descriptors, len(os.listdir(f"/proc/{self.pid}/fd")))
                if self.beside:
                    seconds = sum(map(process_seconds, [self.pid, *self.beside]))
                    self.samples.append((round(time.time(), 3), round(seconds, 2), machine_seconds()))
            except OSError:
                return


def process_seconds(pid):
    """User and system time of a process, its ended threads included."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds():
    """Time in which the machine's cores were not idle, all programs."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def main(output, beside, command):
    pids = []
    for path in beside:
        with open(path, encoding="ascii") as file:
            pids.append(int(file.readline()))
    beside_before = sum(map(process_seconds, pids))
    machine_before = machine_seconds() if beside else 0
    started = time.monotonic()
    child = subprocess.Popen(command)
    sampler = Sampler(child.pid, pids)
    sampler.start()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child.pid, signal.SIGTERM))
    _, status, usage = os.wait4(child.pid, 0)
    sampler.over.set()
    cost = {
        "wall_seconds": round(time.monotonic() - started, 3),
        "user_seconds": usage.ru_utime,
        "system_seconds": usage.ru_stime,
        # Linux counts in KiB, macOS in bytes.
        "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "peak_descriptors": sampler.most_descriptors,
    }
    if beside:
        cost["beside_seconds"] = sum(map(process_seconds, pids)) - beside_before
        cost["machine_seconds"] = machine_seconds() - machine_before
        cost["cores"] = os.cpu_count()
        cost["samples"] = sampler.samples
    with open(output, "w", encoding="utf-8") as file:
        json.dump(cost, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    arguments, services = sys.argv[1:], []
    while arguments[1:2] == ["--beside"]:
        services += arguments[2:3]
        del arguments[1:3]
    if len(arguments) < 2:
        sys.exit(__doc__)
    sys.exit(abs(main(arguments[0], services, arguments[1:])))
