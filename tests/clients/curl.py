#!/usr/bin/env python3
"""The second client: libcurl with ngtcp2 and nghttp3 (curl_cffi), HTTP/3 only. Arguments and result as in scenario.py.

    curl.py get        `paths`, one after another over one connection
    curl.py download   `path`, hashed as it comes
    curl.py upload     `length` bytes to `path`, hashed as they go
"""

import hashlib
import json
import random
import sys
import time

from curl_cffi import Curl, CurlError, CurlInfo, CurlOpt
from curl_cffi.const import CurlHttpVersion

BLOCK = 1024 * 1024


def handle(args, path):
    name = args.get("server_name", "localhost")
    host = f"[{args['host']}]" if ":" in args["host"] else args["host"]
    curl = Curl()
    curl.setopt(CurlOpt.URL, f"https://{name}:{args['port']}{path}".encode())
    curl.setopt(CurlOpt.RESOLVE, [f"{name}:{args['port']}:{host}"])
    curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
    curl.setopt(CurlOpt.TIMEOUT_MS, int(args.get("timeout", 60) * 1000))
    if args.get("ca"):
        curl.setopt(CurlOpt.CAINFO, args["ca"].encode())
    else:
        curl.setopt(CurlOpt.SSL_VERIFYPEER, 0)
        curl.setopt(CurlOpt.SSL_VERIFYHOST, 0)
    if args.get("bind"):
        curl.setopt(CurlOpt.INTERFACE, args["bind"].encode())
    return curl


def perform(curl):
    """Runs the transfer; returns status, error and seconds."""
    started, error = time.monotonic(), None
    try:
        curl.perform()
    except CurlError as cause:
        error = str(cause)
    status = curl.getinfo(CurlInfo.RESPONSE_CODE)
    version = curl.getinfo(CurlInfo.HTTP_VERSION)
    return {"status": status, "version": version, "error": error, "seconds": time.monotonic() - started}


def get(args):
    answers = []
    curl = handle(args, "/")
    for path in args["paths"]:
        body, fields = bytearray(), []
        name = args.get("server_name", "localhost")
        curl.setopt(CurlOpt.URL, f"https://{name}:{args['port']}{path}".encode())
        curl.setopt(CurlOpt.WRITEFUNCTION, lambda data, body=body: body.extend(data) or len(data))
        curl.setopt(CurlOpt.HEADERFUNCTION, lambda line, fields=fields: fields.append(line) or len(line))
        outcome = perform(curl)
        headers = [line.decode("latin-1").strip().split(": ", 1) for line in fields if b": " in line]
        answers.append({**outcome, "headers": headers, "body": body.decode("latin-1"), "length": len(body)})
    curl.close()
    return {"answers": answers}


def download(args):
    digest, length = hashlib.sha256(), 0

    def take(data):
        nonlocal length
        digest.update(data)
        length += len(data)
        return len(data)

    curl = handle(args, args["path"])
    curl.setopt(CurlOpt.WRITEFUNCTION, take)
    outcome = perform(curl)
    curl.close()
    return {**outcome, "length": length, "sha256": digest.hexdigest()}


def upload(args):
    digest, sent, total = hashlib.sha256(), 0, args["length"]
    block = random.Random(args.get("seed", 1)).randbytes(BLOCK)
    answer = bytearray()

    def give(size):
        nonlocal sent
        start = sent % (BLOCK - 65536)
        data = block[start : start + min(size, 65536, total - sent)]
        digest.update(data)
        sent += len(data)
        return data

    curl = handle(args, args["path"])
    curl.setopt(CurlOpt.UPLOAD, 1)
    curl.setopt(CurlOpt.INFILESIZE_LARGE, total)
    curl.setopt(CurlOpt.READFUNCTION, give)
    curl.setopt(CurlOpt.WRITEFUNCTION, lambda data: answer.extend(data) or len(data))
    outcome = perform(curl)
    curl.close()
    return {**outcome, "sent": sent, "sent_sha256": digest.hexdigest(), "body": answer.decode("latin-1")}


def main():
    name, args = sys.argv[1], json.loads(sys.stdin.readline())
    print(json.dumps({"result": {"get": get, "download": download, "upload": upload}[name](args)}), flush=True)


if __name__ == "__main__":
    main()
