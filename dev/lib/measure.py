#!/usr/bin/env python3
"""Runs a command and writes what it cost as JSON: wall, CPU seconds, peak memory, most open descriptors seen, exit status.

usage: measure.py OUTPUT COMMAND [ARGS..]     SIGTERM is passed on, for commands that run until they are told to end
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

SAMPLE_SECONDS = 0.1


class Descriptors(threading.Thread):
    """Looks every now and then how many a process has open."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.folder, self.most, self.over = f"/proc/{pid}/fd", 0, threading.Event()

    def run(self):
        while not self.over.wait(SAMPLE_SECONDS):
            try:
                self.most = max(self.most, len(os.listdir(self.folder)))
            except OSError:
                return


def main(output, command):
    started = time.monotonic()
    child = subprocess.Popen(command)
    descriptors = Descriptors(child.pid)
    descriptors.start()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child.pid, signal.SIGTERM))
    _, status, usage = os.wait4(child.pid, 0)
    descriptors.over.set()
    cost = {
        "wall_seconds": round(time.monotonic() - started, 3),
        "user_seconds": usage.ru_utime,
        "system_seconds": usage.ru_stime,
        # Linux counts in KiB, macOS in bytes.
        "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "peak_descriptors": descriptors.most,
    }
    with open(output, "w", encoding="utf-8") as file:
        json.dump(cost, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(abs(main(sys.argv[1], sys.argv[2:])))
