#!/usr/bin/env python3
"""Proves from outside that an archive holds each produced record exactly once.

Owns: listing the objects, decompressing them with the ordinary command line tools, counting and comparing the records.
Does not own: anything of Sluice's. It knows the layout `<prefix>/<app id>/...<file>` and reads no index, no log, no state.

Two kinds of records are known. Those of dev/loadgen end in `"seq":N}`; which numbers exist comes from a manifest that
loadgen wrote (or --records). All others must be equal, byte for byte, to the lines of the --expect files.
"""

import argparse
import collections
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import s3  # noqa: E402

TOOLS = {".lz4": ["lz4", "-dcq"], ".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dcq"], ".log": ["cat"], ".jsonl": ["cat"]}
SEQ = re.compile(rb',"seq":(\d+)\}+\n')
SEQ_OF_LINE = re.compile(rb',"seq":(\d+)\}$')
APP_OF_LINE = re.compile(rb'"app_id":"([^"]*)"')
# What Sluice's json format puts around a value that is JSON itself.
ENVELOPE = re.compile(rb'\{"topic":.*?,"value":(.*)\}$')
CHUNK = 4 << 20
NO_APP = "_unknown"


class Damaged(Exception):
    """An object that the decompressor refuses, or that ends inside a record."""


class Found:
    """What one object holds."""

    def __init__(self, name, app, stored):
        self.name, self.app, self.stored = name, app, stored
        self.records = self.raw = self.crc_sum = self.misplaced = self.disorder = 0
        self.seqs = []
        self.others = collections.Counter()
        self.ranges = {}
        self.damage = None


def chunks(stream, open_end=False):
    """Cuts a stream at line ends."""
    rest = b""
    while block := stream.read(CHUNK):
        cut = block.rfind(b"\n") + 1
        if cut == 0:
            rest += block
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest and open_end:
        yield rest + b"\n"
    elif rest:
        raise Damaged(f"the last record does not end in a newline: {rest[-80:]!r}")


def count(found, text, enveloped):
    """Adds the records of some whole lines."""
    lines = text.count(b"\n")
    found.records += lines
    found.raw += len(text)
    seqs = SEQ.findall(text)
    placed = text.count(b'"app_id":"%s"' % found.app.encode())
    if not enveloped and len(seqs) == lines == placed:
        found.crc_sum += sum(map(zlib.crc32, text.splitlines()))
        found.seqs.extend(map(int, seqs))
        return
    for line in text[:-1].split(b"\n"):
        if enveloped:
            inner = ENVELOPE.match(line)
            line = inner[1] if inner else line
        seq = SEQ_OF_LINE.search(line)
        if seq:
            found.seqs.append(int(seq[1]))
            found.crc_sum += zlib.crc32(line)
        else:
            found.others[line] += 1
        app = APP_OF_LINE.search(line)
        if (app[1].decode(errors="replace") if app else NO_APP) != found.app:
            found.misplaced += 1


def check_order(found, partitions):
    """Within an object the records of a partition ascend; its ends are kept to compare objects with each other."""
    last, first = [-1] * partitions, {}
    for seq in found.seqs:
        partition = seq % partitions
        if seq <= last[partition]:
            found.disorder += 1
        elif last[partition] < 0:
            first[partition] = seq
        last[partition] = max(seq, last[partition])
    found.ranges = {partition: (seq, last[partition]) for partition, seq in first.items()}


def inspect(job):
    """Runs in a process of its own."""
    source, name, stored, partitions, open_end = job
    relative = name[len(source.prefix) :]
    app = relative.split("/", 1)[0].removeprefix("app_id=") if "/" in relative else ""
    found = Found(name, urllib.parse.unquote(app), stored)
    try:
        with source.open(name) as file:
            tool = subprocess.Popen(
                TOOLS[extension(name)], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
            with tool:
                for text in chunks(tool.stdout, open_end):
                    count(found, text, ".jsonl" in name)
                complaint = tool.stderr.read().decode(errors="replace").strip()
            if tool.returncode != 0:
                raise Damaged(f"{tool.args[0]} says: {complaint or tool.returncode}")
    except (Damaged, OSError, s3.S3Error) as error:
        found.damage = str(error)
    check_order(found, partitions)
    return found


def extension(name):
    return os.path.splitext(name)[1]


class Directory:
    def __init__(self, path):
        self.prefix = os.path.join(os.path.abspath(path), "")
        if not os.path.isdir(self.prefix):
            sys.exit(f"error: {path} is no directory")

    def list(self):
        for folder, folders, files in os.walk(self.prefix):
            folders.sort()
            for file in sorted(files):
                path = os.path.join(folder, file)
                yield path, os.path.getsize(path)

    def open(self, name):
        return open(name, "rb")


class Bucket:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/") + "/" if parts.path.strip("/") else ""

    def list(self):
        return s3.from_environment().list(self.bucket, self.prefix)

    def open(self, name):
        file = tempfile.TemporaryFile()
        shutil.copyfileobj(s3.from_environment().get(self.bucket, name), file, 1 << 20)
        file.seek(0)
        return file


def data_objects(source):
    """Splits the listing into (data, other): Sluice's own files begin with an underscore, its log lies in _sluice/."""
    data, other = [], []
    for name, size in source.list():
        relative = name[len(source.prefix) :]
        own = relative.startswith("_sluice/") or os.path.basename(name).startswith("_")
        if not own:
            (data if extension(name) in TOOLS else other).append((name, size))
    return data, other


def overlaps(objects):
    """Objects of one app whose records of a partition interleave: no order of reading them gives offset order."""
    by_lane = collections.defaultdict(list)
    for found in objects:
        for partition, (first, last) in found.ranges.items():
            by_lane[found.app, partition].append((first, last, found.name))
    pairs = []
    for ranges in by_lane.values():
        ranges.sort()
        pairs.extend((a[2], b[2]) for a, b in zip(ranges, ranges[1:]) if b[0] <= a[1])
    return pairs


class Verdict:
    def __init__(self):
        self.problems = []

    def expect_none(self, what, items, total=None):
        """Notes up to three of the things that should not be there."""
        if items:
            total = total or len(items)
            self.problems.append(f"{what}: {total:,}, for example " + "; ".join(str(item) for item in items[:3]))


def compare_seqs(verdict, objects, ranges):
    """Returns (expected, duplicates, lost)."""
    if not ranges and not any(found.seqs for found in objects):
        return 0, 0, 0
    low = min((first for first, _ in ranges), default=0)
    high = max((end for _, end in ranges), default=0)
    seen = bytearray(high - low)
    due = bytearray(high - low)
    for first, end in ranges:
        due[first - low : end - low] = b"\1" * (end - first)
    twice, strange = {}, []
    for found in objects:
        for seq in found.seqs:
            if not low <= seq < high or not due[seq - low]:
                strange.append(f"seq {seq} in {found.name}")
            elif seen[seq - low]:
                twice[seq] = twice.get(seq, 0) + 1
            else:
                seen[seq - low] = 1
    expected, lost = due.count(1), due.count(1) - seen.count(1)
    holders = collections.defaultdict(list)
    some = set(sorted(twice)[:3])
    for found in objects if some else ():
        for seq in some.intersection(found.seqs):
            holders[seq].append(found.name)
    verdict.expect_none("records found again", [f"seq {s} in {' and '.join(holders[s])}" for s in sorted(some)], sum(twice.values()))
    missing, at = [], -1
    while lost and len(missing) < 3 and (at := next_lost(seen, due, at + 1)) >= 0:
        missing.append(f"seq {low + at}")
    verdict.expect_none("records lost", missing, lost)
    verdict.expect_none("records that nobody produced", strange)
    return expected, sum(twice.values()), lost


def next_lost(seen, due, start):
    at = seen.find(0, start)
    while at >= 0 and not due[at]:
        at = seen.find(0, at + 1)
    return at


def compare_lines(verdict, objects, files):
    """Returns (expected, duplicates, lost)."""
    due, have = collections.Counter(), collections.Counter()
    for name in files:
        with open(name, "rb") as file:
            due.update(line.rstrip(b"\n") for line in file)
    for found in objects:
        have.update(found.others)
    more, less = have - due, due - have
    again = sum(count for line, count in more.items() if line in due)
    strange = [line[:100] for line in more if line not in due]
    verdict.expect_none("lines found again", [line[:100] for line in more if line in due], again)
    verdict.expect_none("lines lost", [line[:100] for line in less], less.total())
    verdict.expect_none("lines that nobody produced", strange)
    return due.total(), again, less.total()


def plan(arguments):
    """What was produced: (ranges of seq, partitions, sum of checksums or None)."""
    ranges, partitions, crc_sum = [], set(), 0
    for name in arguments.manifest:
        with open(name, encoding="utf-8") as file:
            manifest = json.load(file)
        ranges.append((manifest["first_seq"], manifest["first_seq"] + manifest["records"]))
        partitions.add(manifest["partitions"])
        crc_sum += manifest["crc_sum"]
    if arguments.records is not None:
        ranges.append((0, arguments.records))
        partitions.add(arguments.partitions or 1)
        crc_sum = None
    if len(partitions) > 1:
        sys.exit("error: the manifests are of topics with different numbers of partitions")
    return ranges, arguments.partitions or max(partitions, default=1), crc_sum if ranges else None


def verify(arguments):
    source = Bucket(arguments.archive) if arguments.archive.startswith("s3://") else Directory(arguments.archive)
    ranges, partitions, crc_sum = plan(arguments)
    data, other = data_objects(source)
    jobs = [(source, name, size, partitions, arguments.open_end) for name, size in data]
    with multiprocessing.Pool(arguments.jobs or os.cpu_count()) as pool:
        objects = pool.map(inspect, jobs, chunksize=1)

    verdict = Verdict()
    verdict.expect_none("damaged objects", [f"{found.name}: {found.damage}" for found in objects if found.damage])
    seqs = compare_seqs(verdict, objects, ranges)
    lines = compare_lines(verdict, objects, arguments.expect)
    misplaced = [f"{found.misplaced} in {found.name}" for found in objects if found.misplaced]
    verdict.expect_none("records in another app's folder", misplaced, sum(found.misplaced for found in objects))
    disorder = [f"{found.disorder} in {found.name}" for found in objects if found.disorder]
    verdict.expect_none("records out of order", disorder, sum(found.disorder for found in objects))
    verdict.expect_none("objects whose records interleave", [" and ".join(pair) for pair in overlaps(objects)])
    found_sum = sum(found.crc_sum for found in objects)
    if crc_sum is not None and crc_sum != found_sum and not (seqs[1] or seqs[2]):
        verdict.problems.append(f"records changed: their checksums add up to {found_sum}, not to {crc_sum}")

    report = {
        "records": sum(found.records for found in objects),
        "expected": seqs[0] + lines[0],
        "duplicates": seqs[1] + lines[1],
        "lost": seqs[2] + lines[2],
        "objects": len(objects),
        "apps": len({found.app for found in objects}),
        "bytes_stored": sum(found.stored for found in objects),
        "bytes_raw": sum(found.raw for found in objects),
        "other_objects": [name for name, _ in other],
        "problems": verdict.problems,
    }
    return report


def show(report):
    print(
        f"{report['objects']:,} objects of {report['apps']:,} apps, {report['bytes_stored'] / 1e6:,.1f} MB stored, "
        f"{report['bytes_raw'] / 1e6:,.1f} MB decompressed"
    )
    print(
        f"{report['records']:,} records, {report['expected']:,} expected, {report['duplicates']:,} duplicates, "
        f"{report['lost']:,} lost"
    )
    for name in report["other_objects"][:10]:
        print(f"not looked at: {name}")
    for problem in report["problems"]:
        print(f"NOT SO: {problem}")
    if not report["problems"]:
        print("exact: each record is in the archive exactly once, in order, under its app id")


def main(arguments):
    parser = argparse.ArgumentParser(prog="dev/verify-archive", description=__doc__.splitlines()[0])
    parser.add_argument("archive", help="a directory, or s3://bucket/prefix on the MinIO of SLUICE_TEST_MINIO*")
    parser.add_argument("--manifest", action="append", default=[], help="written by dev/loadgen; may be repeated")
    parser.add_argument("--records", type=int, help="without a manifest: records 0..N-1 were produced")
    parser.add_argument("--partitions", type=int, help="without a manifest: of the topic, to check the order")
    parser.add_argument("--expect", action="append", default=[], help="a file of other records, one a line; may be repeated")
    parser.add_argument("--open-end", action="store_true", help="a file's last record needs no newline: others archive so")
    parser.add_argument("--jobs", type=int, help="processes (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    if not options.manifest and options.records is None and not options.expect:
        parser.error("say what was produced: --manifest, --records or --expect")
    report = verify(options)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
