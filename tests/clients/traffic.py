"""Scenarios about requests: single ones, steady load, unique IDs with cancellation, drain."""

import asyncio
import time
from collections import Counter

from h3client import Connection, Failed


async def requests(context):
    """Sends `requests` (method, path, headers, body or body_length, trailers) one after another over one connection.

    With `concurrent`, all are started at once. Returns the answers in order, and how the connection ended.
    """
    connection = await Connection.open(context.target, context.args.get("timeout", 10.0))
    timeout = context.args.get("answer_timeout", 60.0)

    async def one(spec):
        body = spec.get("body", "").encode() or bytes(spec.get("body_length", 0))
        headers = [tuple(line) for line in spec.get("headers", [])]
        trailers = spec.get("trailers")
        method = spec.get("method", "GET")
        answer = await connection.request(
            method, spec["path"], headers, body, trailers, spec.get("keep", True), timeout
        )
        return answer.to_json()

    if context.args.get("concurrent"):
        answers = await asyncio.gather(*(one(spec) for spec in context.args["requests"]))
    else:
        answers = [await one(spec) for spec in context.args["requests"]]
    closed = connection.closed_with
    await connection.finish()
    return {"answers": answers, "closed_with": closed, "handshakes": connection.handshakes}


async def connect(context):
    """Whether a handshake comes about within `timeout` seconds, and how long it took."""
    started = time.monotonic()
    try:
        connection = await Connection.open(context.target, context.args.get("timeout", 3.0))
    except Failed as error:
        return {"connected": False, "error": str(error)}
    certificate = connection._quic.tls._peer_certificate
    key = type(certificate.public_key()).__name__
    subject = certificate.subject.rfc4514_string()
    await connection.finish()
    return {"connected": True, "seconds": time.monotonic() - started, "key": key, "subject": subject}


async def load(context):
    """Steady requests over `connections`, `parallel` on each, until `stop`; new connections when one goes away.

    Counts answers by status, by `x-origin` and by how they ended; keeps the slowest time, and the configurations of the
    connection IDs at the end (draft-ietf-quic-load-balancers section 3.1). `path` may hold `{id}`.
    """
    args = context.args
    outcome, origins, slowest, errors = Counter(), Counter(), 0.0, []
    configurations = set()
    times = []
    done = 0

    async def stream(open_connection):
        nonlocal slowest, done
        while not context.stopped.is_set():
            connection = await open_connection()
            if connection is None:
                return
            path = args.get("path", "/").replace("{id}", str(done))
            answer = await connection.request("GET", path, keep=False, timeout=args.get("answer_timeout", 30.0))
            connection.forget(answer.stream_id)
            outcome[f"{answer.status} {answer.end}"] += 1
            origins[answer.header("x-origin") or ""] += 1
            slowest = max(slowest, answer.seconds)
            times.append(answer.seconds)
            if (answer.status != 200 or answer.end != "clean") and len(errors) < 20:
                errors.append(answer.to_json())
            done += 1
            if done % args.get("report_every", 100) == 0:
                context.event("progress", done=done, outcome=dict(outcome), origins=dict(origins))
            if args.get("pause"):
                await asyncio.sleep(args["pause"])

    async def worker():
        connection, opening = None, asyncio.Lock()

        async def current():
            nonlocal connection
            async with opening:
                if connection is None or connection.closed_with is not None or connection.goaway_seen.is_set():
                    if context.stopped.is_set() or (connection and args.get("reconnect") is False):
                        return None
                    try:
                        connection = await Connection.open(context.target)
                    except Failed as error:
                        outcome["no handshake"] += 1
                        errors.append(f"after {done} requests: {error}")
                        return None
                return connection

        await asyncio.gather(*(stream(current) for _ in range(args.get("parallel", 4))))
        if connection is not None and connection.closed_with is None:
            configurations.update(issued.cid[0] >> 5 for issued in connection.issued())
            await connection.finish()

    await asyncio.gather(*(worker() for _ in range(args.get("connections", 2))))
    times.sort()
    p99 = times[int(len(times) * 0.99)] if times else 0.0
    return {
        "done": done,
        "outcome": dict(outcome),
        "origins": dict(origins),
        "slowest": slowest,
        "p99": p99,
        "configurations": sorted(configurations),
        "errors": errors,
    }


async def paced(context):
    """GET `path`, `rate` a second for `seconds`, by turns over `connections`, of which one goes on from a new local port each
    `rebind_every` seconds. Returns how many were sent, and the statuses.
    """
    args = context.args
    connections = [await Connection.open(context.target) for _ in range(args.get("connections", 1))]
    begun, sent, rebound, asked = time.monotonic(), 0, 0, []
    every = args.get("rebind_every", args["seconds"] + 1)
    while (elapsed := time.monotonic() - begun) < args["seconds"]:
        if elapsed > every * (rebound + 1):
            await connections[rebound % len(connections)].rebind()
            rebound += 1
        connection = connections[sent % len(connections)]
        asked.append(asyncio.ensure_future(connection.request("GET", args["path"], timeout=10.0)))
        sent += 1
        await asyncio.sleep(max(0.0, begun + sent / args["rate"] - time.monotonic()))
    statuses = Counter(str(answer.status) for answer in await asyncio.gather(*asked))
    for connection in connections:
        await connection.finish()
    return {"sent": sent, "rebound": rebound, "statuses": dict(statuses)}


async def crosstalk(context):
    """`requests` POSTs to /echo-body over `connections`, each with its own ID in path, field and body.

    A fraction `cancel` of them is given up at a random moment, and a fraction `faults` goes to where the backend resets the
    stream within its answer. An answer that carries another ID is what must not be.
    """
    args = context.args
    count, width = args["requests"], args["connections"]
    cancel, faults, parallel = args.get("cancel", 0.2), args.get("faults", 0.0), args.get("parallel", 5)
    outcome, wrong, errors = Counter(), [], []
    ids = iter(range(count))

    async def one(connection, number):
        tag = f"r{number:08d}-{context.random.getrandbits(64):016x}"
        body = (tag + ";").encode() * context.random.randint(1, 200)
        headers = [("x-request-tag", tag)]
        give_up = context.random.random() < cancel
        if not give_up and context.random.random() < faults / (1 - cancel):
            answer = await connection.request("GET", f"/reset-after/500?id={tag}", headers, keep=False)
            outcome["reset by the backend" if answer.end == "reset" else f"not reset: {answer.end}"] += 1
            connection.forget(answer.stream_id)
            return
        stream_id = connection.start("POST", f"/echo-body?id={tag}", headers, end=False, keep=True)
        if give_up and context.random.random() < 0.3:
            connection.cancel(stream_id)
        else:
            await connection.send(stream_id, body, end=True)
            if give_up:
                for _ in range(context.random.randint(0, 5)):
                    await asyncio.sleep(0)
                connection.cancel(stream_id)
        answer = await connection.answer(stream_id, 1.0 if give_up else 60.0)
        judge(answer, tag, body, give_up)
        connection.forget(stream_id)

    def judge(answer, tag, body, give_up):
        if answer.status == 200 and answer.header("x-request-tag") not in (None, tag):
            wrong.append([tag, answer.header("x-request-tag")])
        if answer.body and not body.startswith(bytes(answer.body)):
            wrong.append([tag, bytes(answer.body[:64]).decode("latin-1")])
        whole = answer.status == 200 and answer.end == "clean" and bytes(answer.body) == body
        if give_up:
            outcome["cancelled, answered" if whole else "cancelled"] += 1
        elif whole:
            outcome["answered"] += 1
        else:
            outcome[f"failed {answer.status} {answer.end} {answer.reset_code}"] += 1
            if len(errors) < 10:
                errors.append([tag, answer.to_json()])

    async def connection_worker():
        connection = await Connection.open(context.target, 30.0)

        async def stream():
            for number in ids:
                await one(connection, number)

        await asyncio.gather(*(stream() for _ in range(parallel)))
        await connection.finish()

    gate = asyncio.Semaphore(args.get("opening", 10))

    async def gated():
        # Handshakes in batches: two hundred at once would measure the client's own patience.
        async with gate:
            pass
        await connection_worker()

    await asyncio.gather(*(gated() for _ in range(width)))
    return {"outcome": dict(outcome), "wrong": wrong, "errors": errors}


async def cancel(context):
    """Starts `path` `count` times, takes some of the body of each (or waits for nothing), cancels, then asks once more."""
    args = context.args
    connection = await Connection.open(context.target)
    streams = [connection.start("GET", args["path"]) for _ in range(args.get("count", 1))]
    for stream_id in streams:
        if args.get("after_bytes"):
            await connection.received(stream_id, args["after_bytes"])
    context.event("started", count=len(streams))
    await context.stopped.wait()
    for stream_id in streams:
        connection.cancel(stream_id)
    after = await connection.request("GET", args.get("then", "/"))
    closed = connection.closed_with
    await connection.finish()
    return {"after": after.to_json(), "closed_with": closed}


async def drain(context):
    """Starts `count` requests, says `started`, and watches what a draining server does to them and to later ones."""
    args = context.args
    connection = await Connection.open(context.target)
    streams = [connection.start("GET", args["path"], keep=True) for _ in range(args["count"])]
    if args.get("after_bytes"):
        for stream_id in streams:
            await connection.received(stream_id, args["after_bytes"])
    else:
        # A request after the others on the same connection shows that they have been read.
        await connection.request("GET", args.get("first", "/healthz"))
    context.event("started", count=len(streams))
    late = None
    try:
        await asyncio.wait_for(connection.goaway_seen.wait(), args.get("goaway_timeout", 10.0))
        context.event("goaway")
        # The first GOAWAY only warns (RFC 9114 §5.2); requests after the second are not served any more.
        await asyncio.wait_for(connection.second_goaway_seen.wait(), args.get("goaway_timeout", 10.0))
        late = (await connection.request("GET", "/", timeout=5.0)).to_json()
    except (TimeoutError, asyncio.TimeoutError):
        pass
    answers = [(await connection.answer(stream_id)).to_json() for stream_id in streams]
    try:
        await asyncio.wait_for(connection.wait_closed(), args.get("close_timeout", 10.0))
    except (TimeoutError, asyncio.TimeoutError):
        pass
    return {
        "answers": answers,
        "goaways": connection.http.goaway_ids(),
        "late": late,
        "closed_with": connection.closed_with,
    }


async def stop_reading(context):
    """Asks for `path` on `count` streams and gives no more credit after the first 64 KiB. Says `stalled` when they are there.

    After `stop`, how many octets came in all.
    """
    args = context.args
    window = 64 * 1024
    connection = await Connection.open(context.target, rate=0, window=window)
    streams = [connection.start("GET", args["path"]) for _ in range(args["count"])]
    received = lambda: sum(connection.answers[stream_id].length for stream_id in streams)
    deadline = time.monotonic() + 20.0
    while received() < window * 0.9 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    context.event("stalled", received=received())
    await context.stopped.wait()
    total = received()
    await connection.finish()
    return {"received": total}


async def give_up(context):
    """Asks and gives up at once, `count` times on each of `connections` connections, a few hundred a second each.

    A connection that is closed for it is replaced by another. Says `begun` after the first fifty.
    """
    args = context.args
    closed = Counter()
    begun = False

    async def one():
        nonlocal begun
        connection = await Connection.open(context.target)
        for number in range(args["count"]):
            if connection.closed_with is not None:
                closed[str(connection.closed_with)] += 1
                connection = await Connection.open(context.target)
            stream_id = connection.start("GET", args["path"])
            if number % 2:
                # The request is there before it is given up.
                await asyncio.sleep(0.002)
            connection.cancel(stream_id)
            if number == 50 and not begun:
                begun = True
                context.event("begun")
        await connection.finish()

    await asyncio.gather(*(one() for _ in range(args["connections"])))
    return {"closed": dict(closed)}


async def hold(context):
    """Opens `connections`, says `open`, and after `stop` sends a request on each and tells what came of it.

    Each is `answered`, `stateless reset` or `silent` (neither within `answer_timeout` seconds).
    """
    args = context.args
    connections = [await Connection.open(context.target) for _ in range(args["connections"])]
    for connection in connections:
        await connection.request("GET", "/")
    context.event("open", count=len(connections))
    await context.stopped.wait()

    async def fate(connection):
        stream_id = connection.start("GET", args.get("path", "/"))
        waits = [connection.waiters[stream_id], asyncio.ensure_future(connection.stateless_reset.wait())]
        await asyncio.wait(waits, timeout=args.get("answer_timeout", 5.0), return_when=asyncio.FIRST_COMPLETED)
        waits[1].cancel()
        if connection.stateless_reset.is_set():
            return "stateless reset"
        return "answered" if connection.answers[stream_id].end == "clean" else "silent"

    fates = Counter(await asyncio.gather(*(fate(connection) for connection in connections)))
    for connection in connections:
        await connection.finish()
    return dict(fates)


async def come_and_go(context):
    """Keeps `connections` open and puts a new one in the place of one at random every `interval` seconds, until `stop`.

    Says `open` when all are open for the first time. Returns how many were opened.
    """
    args = context.args
    connections = [None] * args["connections"]
    opened = 0

    async def replace(place):
        nonlocal opened
        former, connections[place] = connections[place], await Connection.open(context.target, 20.0)
        opened += 1
        if former is not None:
            await former.finish()

    async def fill(places):
        for place in places:
            await replace(place)

    await asyncio.gather(*(fill(range(first, len(connections), 4)) for first in range(4)))
    context.event("open", count=opened)
    while not context.stopped.is_set():
        await replace(context.random.randrange(len(connections)))
        try:
            await asyncio.wait_for(context.stopped.wait(), args["interval"])
        except asyncio.TimeoutError:
            pass
    for connection in connections:
        await connection.finish()
    return {"opened": opened}


SCENARIOS = [come_and_go, hold, stop_reading, give_up, requests, connect, load, paced, crosstalk, cancel, drain]
