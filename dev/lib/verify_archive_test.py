#!/usr/bin/env python3
"""Shows that verify_archive accepts an exact archive of each codec and format, and names each kind of damage.

Needs the lz4, zstd and gzip tools; with SLUICE_TEST_MINIO set also checks an archive in a bucket.
"""

import contextlib
import io
import json
import os
import struct
import subprocess
import tempfile
import unittest
import uuid
import zlib

import s3
import verify_archive

PARTITIONS = 3
APPS = ["payments-000", "orders-001", "search-002"]
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"index"
PACK = {"lz4": ["lz4", "-cq"], "zst": ["zstd", "-cq"], "gz": ["gzip", "-cq"], "": ["cat"]}


def record(seq, app=None):
    app = app or APPS[seq % 7 % len(APPS)]
    return b'{"ts":"2026-11-22T03:00:00.000Z","app_id":"%s","msg":"m%d","seq":%d}' % (app.encode(), seq, seq)


def enveloped(line):
    return b'{"topic":"t","partition":0,"offset":7,"timestamp":1,"key":null,"headers":[],"value":%s}' % line


def pack(lines, codec="lz4"):
    data = b"".join(line + b"\n" for line in lines)
    tail = {"lz4": SKIPPABLE, "zst": SKIPPABLE}.get(codec, b"")
    return subprocess.run(PACK[codec], input=data, stdout=subprocess.PIPE, check=True).stdout + tail


class VerifyArchive(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.archive = folder.name, os.path.join(folder.name, "archive")
        self.records = [record(seq) for seq in range(600)]
        manifest = {"first_seq": 0, "records": 600, "partitions": PARTITIONS}
        manifest["crc_sum"] = sum(map(zlib.crc32, self.records))
        self.manifest = self.write("manifest.json", json.dumps(manifest).encode())
        self.write("archive/_sluice/c/t/0/1/00000000000000000001", b"log")

    def write(self, name, data):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def put(self, app, name, lines, codec="lz4"):
        return self.write(f"archive/{app}/2026-11-22/{name}", pack(lines, codec))

    def lines_of(self, app):
        return [line for line in self.records if b'"app_id":"%s"' % app.encode() in line]

    def fill(self, kind="log", codec="lz4", wrap=bytes):
        """Two objects per app."""
        for app in APPS:
            lines = list(map(wrap, self.lines_of(app)))
            suffix = "." + codec if codec else ""
            self.put(app, f"0.{kind}{suffix}", lines[:50], codec)
            self.put(app, f"1.{kind}{suffix}", lines[50:], codec)

    def verify(self, *arguments, archive=None):
        """Returns (exit status, report)."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            arguments = [archive or self.archive, "--jobs", "1", "--json", "--manifest", self.manifest, *arguments]
            status = verify_archive.main(arguments)
        return status, json.loads(output.getvalue())

    def assert_exact(self, *arguments, **named):
        status, report = self.verify(*arguments, **named)
        self.assertEqual((status, report["problems"]), (0, []))
        return report

    def assert_refused(self, *words):
        status, report = self.verify()
        self.assertEqual(status, 1)
        for word in words:
            self.assertIn(word, " ".join(report["problems"]))
        return report

    def test_exact_in_each_codec_and_format(self):
        for codec in PACK:
            for kind, wrap in ("log", bytes), ("jsonl", enveloped):
                with self.subTest(codec=codec, format=kind):
                    subprocess.run(["rm", "-rf", self.archive], check=True)
                    self.fill(kind, codec, wrap)
                    report = self.assert_exact()
                    self.assertEqual((report["records"], report["objects"], report["apps"]), (600, 6, 3))

    def test_hive_folders(self):
        for app in APPS:
            self.put("app_id=" + app, "0.log.lz4", self.lines_of(app))
        self.assert_exact()

    def test_sidecars_and_state_are_not_data(self):
        self.fill(codec="")
        self.write("archive/payments-000/_0.log.idx", b"index")
        self.assertEqual(self.assert_exact()["other_objects"], [])
        self.write("archive/payments-000/.tmp-1", b"left behind")
        self.assertEqual(len(self.assert_exact()["other_objects"]), 1)

    def test_last_line_without_a_newline(self):
        self.fill()
        lines = self.lines_of(APPS[0])[50:]
        data = subprocess.run(PACK["lz4"], input=b"\n".join(lines), stdout=subprocess.PIPE, check=True).stdout
        self.write(f"archive/{APPS[0]}/2026-11-22/1.log.lz4", data)
        self.assert_refused("damaged objects", "newline")
        self.assert_exact("--open-end")

    def test_lost_object(self):
        self.fill()
        os.remove(f"{self.archive}/orders-001/2026-11-22/1.log.lz4")
        report = self.assert_refused("records lost", "seq ")
        self.assertEqual(report["lost"], len(self.lines_of("orders-001")) - 50)

    def test_lost_record(self):
        self.fill()
        lines = self.lines_of(APPS[0])
        self.put(APPS[0], "0.log.lz4", lines[:10] + lines[11:50])
        self.assertEqual(self.assert_refused("records lost: 1")["lost"], 1)

    def test_object_twice(self):
        self.fill()
        self.put(APPS[0], "2.log.lz4", self.lines_of(APPS[0])[:50])
        self.assertEqual(self.assert_refused("found again", "0.log.lz4 and", "interleave")["duplicates"], 50)

    def test_record_twice_in_one_object(self):
        self.fill()
        lines = self.lines_of(APPS[0])
        self.put(APPS[0], "0.log.lz4", lines[:10] + lines[9:50])
        self.assertEqual(self.assert_refused("found again: 1", "out of order")["duplicates"], 1)

    def test_wrong_folder(self):
        self.fill()
        self.put(APPS[1], "1.log.lz4", self.lines_of(APPS[1])[50:] + self.lines_of(APPS[0])[:50])
        os.remove(f"{self.archive}/{APPS[0]}/2026-11-22/0.log.lz4")
        self.assert_refused("another app's folder: 50")

    def test_order(self):
        self.fill()
        lines = self.lines_of(APPS[0])
        self.put(APPS[0], "0.log.lz4", lines[:50][::-1])
        self.assert_refused("out of order")

    def test_interleaved_objects(self):
        self.fill()
        lines = self.lines_of(APPS[0])
        self.put(APPS[0], "0.log.lz4", lines[::2])
        self.put(APPS[0], "1.log.lz4", lines[1::2])
        self.assert_refused("interleave")

    def test_changed_record(self):
        self.fill()
        lines = self.lines_of(APPS[0])
        self.put(APPS[0], "0.log.lz4", [lines[0].replace(b'"msg":"m', b'"msg":"n')] + lines[1:50])
        self.assert_refused("records changed")

    def test_invented_record(self):
        self.fill()
        self.put(APPS[0], "2.log.lz4", [record(600, APPS[0])])
        self.assert_refused("nobody produced", "seq 600")

    def test_cut_and_flipped_objects(self):
        for codec in "lz4", "zst", "gz":
            with self.subTest(codec=codec):
                subprocess.run(["rm", "-rf", self.archive], check=True)
                self.fill(codec=codec)
                path = f"{self.archive}/{APPS[0]}/2026-11-22/0.log.{codec}"
                with open(path, "rb") as file:
                    whole = file.read()
                self.write(path, whole[: len(whole) // 2])
                self.assert_refused("damaged", path)
                middle = len(whole) // 2
                self.write(path, whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :])
                self.assertEqual(self.verify()[0], 1)

    def test_no_newline_at_the_end(self):
        self.fill(codec="")
        with open(f"{self.archive}/{APPS[0]}/2026-11-22/1.log", "rb+") as file:
            file.truncate(os.path.getsize(file.name) - 1)
        self.assert_refused("newline")

    def test_expected_lines(self):
        self.fill()
        lines = [b'{"app_id":"kafka-broker","line":%d,"msg":"a \xff"}' % n for n in range(20)]
        expect = self.write("expect.jsonl", b"".join(line + b"\n" for line in lines))
        nobody = self.write("nobody.jsonl", b"not json\n")
        self.put("_unknown", "0.log.lz4", [b"not json"])
        self.put("kafka-broker", "0.log.lz4", lines)
        both = ("--expect", expect, "--expect", nobody)
        self.assertEqual(self.assert_exact(*both)["records"], 621)
        for wrong in lines[1:], lines + lines[:1], lines[1:] + [lines[0].replace(b"a", b"b")]:
            self.put("kafka-broker", "0.log.lz4", wrong)
            self.assertEqual(self.verify(*both)[0], 1)
        self.put("other", "0.log.lz4", lines)
        os.remove(f"{self.archive}/kafka-broker/2026-11-22/0.log.lz4")
        self.assertIn("another app's folder: 20", " ".join(self.verify(*both)[1]["problems"]))

    @unittest.skipUnless("SLUICE_TEST_MINIO" in os.environ, "SLUICE_TEST_MINIO is not set")
    def test_bucket(self):
        self.fill()
        client, bucket = s3.from_environment(), f"verify-{uuid.uuid4()}"
        self.addCleanup(client.connection.close)
        client.make_bucket(bucket)
        for name, _ in verify_archive.Directory(self.archive).list():
            with open(name, "rb") as file:
                client.put(bucket, "logs/" + name[len(self.archive) + 1 :], file.read())
        self.assert_exact(archive=f"s3://{bucket}/logs")
        client.delete(bucket, "logs/search-002/2026-11-22/1.log.lz4")
        status, report = self.verify(archive=f"s3://{bucket}/logs")
        self.assertEqual((status, report["lost"]), (1, len(self.lines_of("search-002")) - 50))
        for name, _ in list(client.list(bucket)):
            client.delete(bucket, name)
        client.request("DELETE", f"/{bucket}").read()


if __name__ == "__main__":
    unittest.main()
