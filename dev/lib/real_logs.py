#!/usr/bin/env python3
"""Prints the log lines that are found on this machine as JSON, one record a line: app_id, source, line, msg.

Owns: where logs lie on Debian, Ubuntu, Fedora and macOS, which app each belongs to.
Does not own: sending them. Files that cannot be read are left out.

usage: real_logs.py [APP=FILE..]        FILEs besides those of the system
"""

import glob
import json
import os
import subprocess
import sys

MOST_LINES = 20_000
PATTERNS = ["/var/log/*.log", "/var/log/syslog", "/var/log/messages", "/var/log/apt/*.log", "/var/log/dnf*.log"]
COMMANDS = {
    "journal": ["journalctl", "--no-pager", "--quiet", "-o", "short-iso", "-n", str(MOST_LINES)],
    "kernel": ["dmesg"],
}


def emit(app, source, lines):
    """Returns how many records that were."""
    count = 0
    for number, line in enumerate(lines, 1):
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if not text:
            continue
        record = {"app_id": app} if app else {}
        record |= {"source": source, "line": number, "msg": text[:8000]}
        # ASCII only: Kafka's console producer reads in the locale's character set.
        print(json.dumps(record, separators=(",", ":")))
        count += 1
    return count


def last_lines(path):
    """Empty where the file is missing, not ours to read, or no text."""
    try:
        with open(path, "rb") as file:
            if b"\0" in file.read(4096):
                return []
            file.seek(0)
            return file.readlines()[-MOST_LINES:]
    except OSError:
        return []


def output_of(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()[-MOST_LINES:] if done.returncode == 0 else []


def app_of(path):
    folder = os.path.basename(os.path.dirname(path))
    name = os.path.basename(path).split(".")[0]
    return name if folder == "log" else f"{folder}-{name}"


def main(arguments):
    found = []
    for argument in arguments:
        app, _, path = argument.partition("=")
        found.append((app, path, last_lines(path)))
    for path in sorted({path for pattern in PATTERNS for path in glob.glob(pattern)}):
        found.append((app_of(path), path, last_lines(path)))
    for app, command in COMMANDS.items():
        found.append((app, " ".join(command), output_of(command)))
    # One record that says no app: it has a home too.
    found.append((None, "uname -a", output_of(["uname", "-a"])))
    for app, source, lines in found:
        if count := emit(app, source, lines):
            print(f"  {count:>7,} lines  {app or '(no app id)':<16} {source}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
