#!/usr/bin/env python3
"""Runs one client scenario for the Rust tests: `scenario.py NAME`, arguments as one JSON object on the first line of
standard input; later lines are commands (`stop`). On standard output, one JSON object a line: events as
`{"event": NAME, ...}` while it runs, and `{"result": ...}` or `{"error": TEXT}` at the end.
"""

import asyncio
import json
import random
import sys
import traceback

import abuse
import conformance_http3
import conformance_parameters
import conformance_quic
import conformance_versions
import crypto_frames
import datagrams
import early
import flood
import forgery
import hostile
import messages
import paths
import traffic
import transfer
import transport
from h3client import Failed, Target

MODULES = (
    abuse,
    conformance_http3,
    conformance_parameters,
    conformance_quic,
    conformance_versions,
    crypto_frames,
    datagrams,
    early,
    flood,
    forgery,
    hostile,
    messages,
    paths,
    traffic,
    transfer,
    transport,
)
ALL = [function for module in MODULES for function in module.SCENARIOS]
SCENARIOS = {function.__name__: function for function in ALL}
if len(SCENARIOS) < len(ALL):
    raise SystemExit("two scenarios have the same name")


class Context:
    """What a scenario gets: its arguments, where to connect, a seeded random source, events out, commands in."""

    def __init__(self, args):
        self.args = args
        self.target = Target.of(args)
        self.random = random.Random(args.get("seed", 1))
        self.stopped = asyncio.Event()

    def event(self, name, **values):
        emit({"event": name, **values})

    def watch_commands(self):
        asyncio.get_running_loop().add_reader(sys.stdin, self._command)

    def _command(self):
        line = sys.stdin.readline()
        if not line or line.strip() == "stop":
            self.stopped.set()
            asyncio.get_running_loop().remove_reader(sys.stdin)


def emit(value):
    print(json.dumps(value), flush=True)


async def run(name, args):
    context = Context(args)
    context.watch_commands()
    return await SCENARIOS[name](context)


def main():
    name, args = sys.argv[1], json.loads(sys.stdin.readline())
    try:
        emit({"result": asyncio.run(run(name, args))})
    except Failed as error:
        emit({"error": str(error)})
    except Exception:
        emit({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
