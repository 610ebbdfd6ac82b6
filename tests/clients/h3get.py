#!/usr/bin/env python3
"""Fetches a URL over HTTP/3 and prints what came: status, fields, body.

    h3get.py URL [--ca FILE | --insecure] [-X METHOD] [-H 'name: value']... [--data TEXT] [--count N] [--connect ADDR]

--count sends that many requests, one after another, over one connection. --connect sends to another address than the
URL's host has. Exit code 0 when every response ended cleanly, 1 otherwise.
"""

import argparse
import asyncio
import socket
import sys
from urllib.parse import urlsplit

from h3client import Connection, Failed, Target


def arguments():
    parser = argparse.ArgumentParser(description="Fetch a URL over HTTP/3.")
    parser.add_argument("url")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--ca", help="PEM file with the certificates to trust")
    trust.add_argument("--insecure", action="store_true", help="do not verify the certificate")
    parser.add_argument("-X", "--method", help="default GET, or POST with --data")
    parser.add_argument("-H", "--header", action="append", default=[], help="'name: value'")
    parser.add_argument("--data", help="request body; @FILE reads a file")
    parser.add_argument("--count", type=int, default=1, help="requests to send, one after another")
    parser.add_argument("--connect", help="address to send to instead of the URL's host")
    return parser.parse_args()


async def fetch(args):
    url = urlsplit(args.url)
    if url.scheme != "https" or not url.hostname:
        raise Failed("the URL has to start with https:// and name a host")
    port = url.port or 443
    address = socket.getaddrinfo(args.connect or url.hostname, port, type=socket.SOCK_DGRAM)[0][4][0]
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    body = b""
    if args.data is not None:
        body = open(args.data[1:], "rb").read() if args.data.startswith("@") else args.data.encode()
    headers = [tuple(part.strip() for part in line.split(":", 1)) for line in args.header]
    if body:
        headers.append(("content-length", str(len(body))))
    method = args.method or ("POST" if body else "GET")
    target = Target(
        address, port, url.hostname, args.ca, args.insecure, authority=url.netloc.rpartition("@")[2]
    )
    connection = await Connection.open(target)
    clean = True
    for _ in range(args.count):
        answer = await connection.request(method, path, [(k.lower(), v) for k, v in headers], body)
        clean &= answer.end == "clean"
        show(answer)
    await connection.finish()
    return 0 if clean else 1


def show(answer):
    for interim in answer.informational:
        print(f"HTTP/3 {interim['status']}")
    print(f"HTTP/3 {answer.status}")
    for name, value in answer.headers:
        print(f"{name}: {value}")
    print()
    sys.stdout.flush()
    sys.stdout.buffer.write(bytes(answer.body))
    sys.stdout.buffer.flush()
    for name, value in answer.trailers or ():
        print(f"{name}: {value}")
    if answer.end != "clean":
        print(f"h3get: the response did not end: {answer.end} {answer.reset_code or ''}", file=sys.stderr)


def main():
    try:
        sys.exit(asyncio.run(fetch(arguments())))
    except (Failed, OSError) as error:
        print(f"h3get: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
