#!/usr/bin/env python3
"""The health oracle: a client of its own beside an attack. It asks for one path at a steady rate over HTTP/3 (libcurl with
ngtcp2 and nghttp3), with a new connection every few seconds, and says how it fared. Arguments as in scenario.py: `path`,
`sha256` of its content, `rate` a second, `renew` in seconds, `quiet` requests before the attack.

Events: `ready` when it waits for the line `begin` on standard input, `quiet` when the quiet time is over; the attack is
reckoned from the line `attack` to the line `stop`. How late its own clock woke it is told too: what the machine did, and not the server.
"""

import hashlib
import json
import select
import sys
import time

from curl import handle, perform
from curl_cffi import CurlOpt

# A request that takes this long has failed.
PATIENCE = 10.0
# Whatever the attack takes, this many requests are reckoned.
LEAST = 20


class Phase:
    def __init__(self):
        self.seconds, self.lateness, self.failed = [], [], []

    def result(self):
        return {
            "requests": len(self.seconds),
            "p99": p99(self.seconds),
            "lateness": p99(self.lateness),
            "failed": self.failed[:10],
            "failures": len(self.failed),
        }


def p99(values):
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)] if values else 0.0


class Connection:
    """One connection after another, the next when the last is `renew` seconds old or has failed."""

    def __init__(self, args):
        self.args, self.curl, self.until = args, None, 0.0

    def ask(self):
        if self.curl is None or time.monotonic() > self.until:
            self.close()
            self.curl = handle({**self.args, "timeout": PATIENCE}, self.args["path"])
            self.until = time.monotonic() + self.args["renew"]
        body = bytearray()
        self.curl.setopt(CurlOpt.WRITEFUNCTION, lambda data: body.extend(data) or len(data))
        outcome = perform(self.curl)
        exact = hashlib.sha256(body).hexdigest() == self.args["sha256"]
        if outcome["error"] is None and outcome["status"] == 200 and exact:
            return outcome["seconds"], None
        self.close()
        return outcome["seconds"], {**outcome, "length": len(body)}

    def close(self):
        if self.curl is not None:
            self.curl.close()
            self.curl = None


def command(until):
    """Waits until then, or for a line on standard input. An end of input is a `stop`."""
    ready, _, _ = select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))
    return (sys.stdin.readline().strip() or "stop") if ready else None


def oracle(args):
    connection, quiet, attack = Connection(args), Phase(), Phase()
    print(json.dumps({"event": "ready"}), flush=True)
    if sys.stdin.readline().strip() != "begin":
        raise SystemExit("nothing to begin with")
    phase, due, stopped = quiet, time.monotonic(), False
    while not (stopped and len(attack.seconds) >= LEAST):
        waits = time.monotonic() < due
        word = None if stopped else command(due)
        if word == "attack":
            phase, due = attack, time.monotonic()
        stopped |= word == "stop"
        if stopped:
            time.sleep(max(0.0, due - time.monotonic()))
        if (now := time.monotonic()) < due:
            continue
        if waits and word is None:
            phase.lateness.append(now - due)
        seconds, failure = connection.ask()
        phase.seconds.append(seconds)
        if failure is not None:
            phase.failed.append(failure)
        if phase is quiet and len(quiet.seconds) == args["quiet"]:
            print(json.dumps({"event": "quiet"}), flush=True)
        due = max(due + 1.0 / args["rate"], now)
    connection.close()
    return {"quiet": quiet.result(), "attack": attack.result()}


if __name__ == "__main__":
    print(json.dumps({"result": oracle(json.loads(sys.stdin.readline()))}), flush=True)
