"""Scenarios about bodies: downloads and uploads, paced ones, and transfers that move to new ports half-way."""

import asyncio
import hashlib
import time

from h3client import Connection

BLOCK = 256 * 1024


async def download(context):
    """GET `path`; with `rate` (bytes a second), flow-control credit is given at that rate. Ends early on `stop`."""
    args = context.args
    connection = await Connection.open(
        context.target, rate=args.get("rate"), window=args.get("window", 256 * 1024)
    )
    stream_id = connection.start("GET", args["path"])
    answer = connection.answers[stream_id]
    context.event("started")
    started = time.monotonic()
    reported = started
    while not connection.waiters[stream_id].done() and not context.stopped.is_set():
        await asyncio.sleep(0.05)
        connection.transmit()
        if time.monotonic() - reported > 1.0:
            reported = time.monotonic()
            context.event("progress", length=answer.length)
    seconds = time.monotonic() - started
    if answer.end == "open":
        connection.cancel(stream_id)
    result = {**answer.to_json(), "transfer_seconds": seconds}
    await connection.finish()
    return result


async def upload(context):
    """PUT of `length` bytes to `path`, as fast as the peer takes them or at `rate`. Ends early on `stop`."""
    args = context.args
    connection = await Connection.open(context.target)
    length, rate = args["length"], args.get("rate")
    headers = [("content-length", str(length))] if args.get("declare", True) else []
    stream_id = connection.start("PUT", args["path"], headers, end=False, keep=True)
    context.event("started")
    block = context.random.randbytes(BLOCK)
    digest, sent, started, reported = hashlib.sha256(), 0, time.monotonic(), 0.0
    while sent < length and not context.stopped.is_set():
        part = (sent.to_bytes(8, "little") + block)[: min(BLOCK, length - sent)]
        digest.update(part)
        sent += len(part)
        if not await connection.send(stream_id, part, end=sent == length):
            break
        if rate:
            await asyncio.sleep(max(0.0, started + sent / rate - time.monotonic()))
        if time.monotonic() - reported > 1.0:
            reported = time.monotonic()
            context.event("progress", length=sent)
    if context.stopped.is_set() and sent < length:
        connection.cancel(stream_id)
    answer = await connection.answer(stream_id, args.get("answer_timeout", 60.0))
    result = {
        "sent": sent,
        "sent_sha256": digest.hexdigest(),
        "answer": answer.to_json(),
        "transfer_seconds": time.monotonic() - started,
    }
    await connection.finish()
    return result


async def slow_pairs(context):
    """`count` connections, each with a download of `down` read at `rate` bytes a second and an endless upload to `up`.

    Says `going` when a megabyte in all has come and gone. Ends on `stop`; the octets each way of the slowest and the fastest pair.
    """
    args = context.args
    connections = [
        await Connection.open(context.target, rate=args["rate"], window=args["window"]) for _ in range(args["count"])
    ]
    block = context.random.randbytes(BLOCK)
    sent = [0] * len(connections)
    downs = []

    async def upload(index, connection):
        stream_id = connection.start("PUT", args["up"], end=False)
        while not context.stopped.is_set() and await connection.send(stream_id, block[:65536]):
            sent[index] += 65536
        connection.cancel(stream_id)

    for connection in connections:
        downs.append(connection.start("GET", args["down"]))
    tasks = [asyncio.ensure_future(upload(*pair)) for pair in enumerate(connections)]
    told = False
    received = lambda: [each.answers[stream_id].length for each, stream_id in zip(connections, downs)]
    while not context.stopped.is_set():
        await asyncio.sleep(0.1)
        for connection in connections:
            connection.transmit()
        if not told and sum(received()) > 1_000_000 and sum(sent) > 1_000_000:
            told = True
            context.event("going")
    for task in tasks:
        task.cancel()
    closed = [connection.closed_with for connection in connections if connection.closed_with is not None]
    for connection, stream_id in zip(connections, downs):
        connection.cancel(stream_id)
        await connection.finish()
    down = received()
    return {"down": [min(down), max(down)], "up": [min(sent), max(sent)], "closed": closed}


async def rebind(context):
    """`connections` downloads (or echoes of uploads), each moving to a new local port `rebinds` times on its way.

    A move happens each time a further share of the body has arrived, so that there is always one in mid-transfer. With
    `change_id` each move uses another connection ID of the peer's.
    """
    args = context.args
    rebinds, length = args["rebinds"], args["length"]
    gate = asyncio.Semaphore(args.get("at_once", 4))

    async def one(index):
        async with gate:
            connection = await Connection.open(context.target)
            path = args["path"].replace("{seed}", str(index)).replace("{length}", str(length))
            stream_id = connection.start("GET", path)
            moved, change_id = 0, args.get("change_id", False)
            ids = {connection._quic._peer_cid.cid}
            for turn in range(rebinds):
                if not await connection.received(stream_id, length * (turn + 1) // (rebinds + 2)):
                    break
                if connection.waiters[stream_id].done():
                    break
                # The peer may be slower to issue IDs than this client is to use them up.
                while change_id and not connection._quic._peer_cid_available:
                    await asyncio.sleep(0.005)
                await connection.rebind(args.get("lossless", True), change_id)
                ids.add(connection._quic._peer_cid.cid)
                moved += 1
            answer = await connection.answer(stream_id)
            result = {
                "seed": index,
                "moved": moved,
                "ids_used": len(ids),
                "length": answer.length,
                "sha256": answer.hash.hexdigest(),
                "end": answer.end,
                "reset_code": answer.reset_code,
                "closed_with": connection.closed_with,
                "handshakes": connection.handshakes,
                "path_challenges": connection._quic.path_challenges,
            }
            await connection.finish()
            return result

    return {"transfers": await asyncio.gather(*(one(i) for i in range(args["connections"])))}


async def upload_rebind(context):
    """One upload that moves to a new local port `rebinds` times while it sends."""
    args = context.args
    connection = await Connection.open(context.target)
    length, rebinds = args["length"], args["rebinds"]
    stream_id = connection.start("PUT", args["path"], end=False, keep=True)
    block = context.random.randbytes(BLOCK)
    digest, sent, moved = hashlib.sha256(), 0, 0
    while sent < length:
        part = block[: min(BLOCK, length - sent)]
        digest.update(part)
        sent += len(part)
        await connection.send(stream_id, part, end=sent == length)
        if moved < rebinds and sent * (rebinds + 1) >= length * (moved + 1) and sent < length:
            await connection.rebind()
            moved += 1
    answer = await connection.answer(stream_id)
    result = {
        "moved": moved,
        "sent_sha256": digest.hexdigest(),
        "answer": answer.to_json(),
        "closed_with": connection.closed_with,
        "path_challenges": connection._quic.path_challenges,
    }
    await connection.finish()
    return result


SCENARIOS = [download, upload, slow_pairs, rebind, upload_rebind]
