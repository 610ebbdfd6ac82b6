#!/usr/bin/env python3
"""One interface to every HTTP/3 client of the matrix (cases.yaml): `interop.py CLIENT`, the case as one JSON object on the
first line of standard input, one line with `{"result": ...}` or `{"error": TEXT}` out.

    host, port, server_name, ca    where to connect, and whom to trust
    paths                          what to GET, over one connection
    concurrent                     all at once; else one after another
    connections, at_once           do all of it so often; so many of them side by side
    cipher                         the only cipher suite to offer: chacha20
    key_updates                    so often, spread over the answers
    resume                         a second connection goes on with the session of the first
    again                          a connection that failed is made anew, twice at most
    timeout                        seconds a connection may take

The result is a list of connections, each `{"answers": [...], "error": TEXT or null, "attempts": N, "facts": {...}}`; an
answer is `{"path", "status", "length", "sha256", "error"}`. What a client cannot tell is null.
"""

import asyncio
import json
import sys
import traceback

import interop_asyncio
import interop_curl
import interop_gtlsclient

CLIENTS = {
    "aioquic": lambda case: interop_asyncio.exchange("aioquic", case),
    "qh3": lambda case: interop_asyncio.exchange("qh3", case),
    "curl": interop_curl.exchange,
    "gtlsclient": interop_gtlsclient.exchange,
}

RETRIES = 2


def failed(connection):
    """Whether it, or an answer on it, came to nothing."""
    answers = connection["answers"]
    return connection["error"] or not answers or any(answer["error"] or not answer["length"] for answer in answers)


async def run(client, case):
    gate = asyncio.Semaphore(case.get("at_once", 1))

    async def one():
        async with gate:
            attempts = 1
            # A list: with `resume` there are two connections.
            connections = await CLIENTS[client](case)
            while case.get("again") and attempts <= RETRIES and any(map(failed, connections)):
                attempts += 1
                connections = await CLIENTS[client](case)
            return [{**connection, "attempts": attempts} for connection in connections]

    lists = await asyncio.gather(*(one() for _ in range(case.get("connections", 1))))
    return [connection for connections in lists for connection in connections]


def main():
    client, case = sys.argv[1], json.loads(sys.stdin.readline())
    try:
        print(json.dumps({"result": asyncio.run(run(client, case))}), flush=True)
    except Exception:
        print(json.dumps({"error": traceback.format_exc()}), flush=True)


if __name__ == "__main__":
    main()
