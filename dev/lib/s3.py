#!/usr/bin/env python3
"""A small S3 client for the scripts of dev/: path style, Signature Version 4, Python's standard library only.

Owns: signing, listing, reading, writing of objects on MinIO and alike.
Does not own: retries, multipart, virtual-hosted addressing; it is for local services, and shares no code with Sluice.

usage: s3.py mb|ls|get|put|rm URL [FILE]     URL: s3://bucket/key; endpoint and keys from the environment
       (SLUICE_TEST_MINIO, SLUICE_TEST_MINIO_KEY, SLUICE_TEST_MINIO_SECRET)
"""

import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


class S3Error(Exception):
    def __init__(self, status, method, path, body):
        super().__init__(f"{method} {path}: HTTP {status} {body[:300].decode(errors='replace')}")
        self.status = status


class Client:
    """One connection; not for use by several threads."""

    def __init__(self, endpoint, key, secret, region="us-east-1"):
        url = urllib.parse.urlsplit(endpoint)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(url.netloc, timeout=60)
        self.host, self.key, self.secret, self.region = url.netloc, key, secret, region

    def request(self, method, path, query=(), body=b""):
        """Sends; returns the response, whose body the caller reads to the end."""
        path = urllib.parse.quote(path, safe="/~")
        pairs = sorted((urllib.parse.quote(k, safe="~"), urllib.parse.quote(v, safe="~")) for k, v in query)
        query = "&".join(f"{k}={v}" for k, v in pairs)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.host, "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{k}:{v}\n" for k, v in headers.items())
        canonical = "\n".join([method, path, query, lines, names, headers["x-amz-content-sha256"]])
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        step = ("AWS4" + self.secret).encode()
        for part in (now[:8], self.region, "s3", "aws4_request"):
            step = hmac.new(step, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(step, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        self.connection.request(method, path + ("?" + query if query else ""), body, headers)
        response = self.connection.getresponse()
        if response.status >= 300:
            raise S3Error(response.status, method, path, response.read())
        return response

    def make_bucket(self, bucket):
        """An existing bucket of the same owner is left as it is."""
        try:
            self.request("PUT", f"/{bucket}").read()
        except S3Error as error:
            if error.status != 409:
                raise

    def list(self, bucket, prefix=""):
        """Yields (key, size) in key order."""
        token = None
        while True:
            query = [("list-type", "2"), ("prefix", prefix)]
            if token:
                query.append(("continuation-token", token))
            tree = ElementTree.fromstring(self.request("GET", f"/{bucket}", query).read())
            space = tree.tag.partition("}")[0] + "}" if tree.tag.startswith("{") else ""
            for item in tree.iter(space + "Contents"):
                yield item.findtext(space + "Key"), int(item.findtext(space + "Size"))
            if tree.findtext(space + "IsTruncated") != "true":
                return
            token = tree.findtext(space + "NextContinuationToken")

    def get(self, bucket, key):
        """A file-like response."""
        return self.request("GET", f"/{bucket}/{key}")

    def put(self, bucket, key, body):
        self.request("PUT", f"/{bucket}/{key}", body=body).read()

    def delete(self, bucket, key):
        self.request("DELETE", f"/{bucket}/{key}").read()


def from_environment():
    try:
        return Client(
            os.environ["SLUICE_TEST_MINIO"],
            os.environ["SLUICE_TEST_MINIO_KEY"],
            os.environ["SLUICE_TEST_MINIO_SECRET"],
        )
    except KeyError as missing:
        sys.exit(f'error: {missing.args[0]} is not set: eval "$(dev/services env)"')


def main(arguments):
    if len(arguments) < 2 or arguments[0] not in ("mb", "ls", "get", "put", "rm"):
        sys.exit(__doc__)
    url = urllib.parse.urlsplit(arguments[1])
    bucket, key = url.netloc, url.path.lstrip("/")
    client = from_environment()
    if arguments[0] == "mb":
        client.make_bucket(bucket)
    elif arguments[0] == "ls":
        for name, size in client.list(bucket, key):
            print(f"{size:12} {name}")
    elif arguments[0] == "get":
        response = client.get(bucket, key)
        while block := response.read(1 << 20):
            sys.stdout.buffer.write(block)
    elif arguments[0] == "put":
        with open(arguments[2], "rb") as file:
            client.put(bucket, key, file.read())
    else:
        client.delete(bucket, key)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (S3Error, OSError) as error:
        sys.exit(f"error: {error}")
