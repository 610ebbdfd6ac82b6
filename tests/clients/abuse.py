"""Scenarios of clients that keep to the letter of HTTP/3 and ask too much: resets, slowness, sizes, floods."""

import asyncio
import time

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder

from h3client import H3_REQUEST_CANCELLED, Connection

H3_EXCESSIVE_LOAD = 0x107


async def closed(connection, seconds=5.0):
    """The code the peer closed with, or None."""
    end = time.monotonic() + seconds
    # aioquic tells of it only at the end of its draining period.
    while connection._quic._close_event is None and time.monotonic() < end:
        await asyncio.sleep(0.01)
    event = connection._quic._close_event
    return None if event is None else event.error_code


async def room_for_a_stream(connection):
    """Waits for MAX_STREAMS; False when the connection is closed."""
    quic = connection._quic
    while connection.closed_with is None:
        if quic.get_next_available_stream_id() // 4 < quic._remote_max_streams_bidi:
            return True
        await asyncio.sleep(0.001)
    return False


async def rapid_reset(context):
    """Opens and resets `count` requests, `batch` at a time, head and reset in one datagram or, with `apart`, not."""
    args = context.args
    connection = await Connection.open(context.target)
    before = await connection.request("GET", "/")
    opened, begun = 0, time.monotonic()
    while opened < args["count"] and connection.closed_with is None:
        batch = []
        while len(batch) < args.get("batch", 1) and await room_for_a_stream(connection):
            stream_id = connection._quic.get_next_available_stream_id()
            connection.http.send_headers(stream_id, connection.fields("GET", args["path"]), end_stream=False)
            if args.get("apart"):
                connection.transmit()
            batch.append(stream_id)
        if args.get("apart"):
            # Until the backends have them.
            await asyncio.sleep(args["apart"])
        for stream_id in batch:
            if stream_id in connection._quic._streams:
                connection._quic.reset_stream(stream_id, H3_REQUEST_CANCELLED)
                connection._quic.stop_stream(stream_id, H3_REQUEST_CANCELLED)
        connection.transmit()
        opened += len(batch)
        await asyncio.sleep(0)
        if args.get("pause"):
            await asyncio.sleep(args["pause"])
    code = await closed(connection, args.get("patience", 5.0))
    result = {"before": before.to_json(), "opened": opened, "closed_with": code}
    result["seconds"] = time.monotonic() - begun
    if code is None:
        result["after"] = (await connection.request("GET", "/")).to_json()
    connection.abandon()
    return result


async def induced_resets(context):
    """Makes the server reset `count` requests: more body than declared, a pseudo-header field in the trailers."""
    connection = await Connection.open(context.target)
    sent = 0
    while sent < context.args["count"] and await room_for_a_stream(connection):
        length = [(b"content-length", b"3")] if sent % 2 else []
        fields = [*connection.fields("POST", context.args["path"]), *length]
        stream_id = connection.start_raw(fields, end=False)
        await asyncio.sleep(0.002)
        if length:
            connection.http.send_data(stream_id, b"12345", end_stream=False)
        else:
            connection.http.send_headers(stream_id, [(b":path", b"/")], end_stream=True)
        connection.transmit()
        await connection.answer(stream_id, 1.0)
        sent += 1
    code = await closed(connection, 1.0)
    connection.abandon()
    return {"sent": sent, "closed_with": code}


async def slow(context):
    """On each of `connections`, `streams` requests that stand still, kept up by PING, until all have ended or `seconds` are over.

    `how`: `head`, half a HEADERS frame; `body`, a body of which one octet comes; `trickle`, an octet each second; `read`, no
    window for the response. Returns how each ended and after how long.
    """
    args = context.args
    target, how = context.target, args["how"]

    async def one():
        # With a rate of nothing the first window is the last.
        window = {"rate": 0, "window": 64 * 1024} if how == "read" else {}
        connection = await Connection.open(target, **window)
        quic = connection._quic
        ids = []
        for _ in range(args["streams"]):
            if how == "head":
                # HEADERS of 200 octets, of which ten come.
                stream_id = connection.raw_stream(encode_uint_var(1) + encode_uint_var(200) + bytes(10))
            elif how == "read":
                stream_id = connection.start("GET", args["path"])
            else:
                fields = [*connection.fields("POST", args["path"]), (b"content-length", b"1000")]
                stream_id = connection.start_raw(fields, end=False)
                connection.http.send_data(stream_id, b"a", end_stream=False)
                connection.transmit()
            ids.append(stream_id)
        begun, ping = time.monotonic(), 0
        while time.monotonic() < begun + args["seconds"]:
            if connection.closed_with is not None or all(connection.waiters[each].done() for each in ids):
                break
            ping += 1
            quic.send_ping(ping)
            if how == "trickle":
                for stream_id in ids:
                    if not connection.waiters[stream_id].done():
                        connection.http.send_data(stream_id, b"a", end_stream=False)
            connection.transmit()
            await asyncio.sleep(1.0)
        ends = [connection.answers[each].to_json() for each in ids]
        code = connection.closed_with
        after = None
        if code is None:
            after = (await connection.request("GET", "/", timeout=5.0)).to_json() if how != "read" else None
            await connection.finish()
        return ends, code, after

    results = await asyncio.gather(*[one() for _ in range(args.get("connections", 1))])
    ends = [end for each, _, _ in results for end in each]
    kinds = {}
    for end in ends:
        kind = f"{end['status']} {end['end']} {end['reset_code']}"
        kinds[kind] = kinds.get(kind, 0) + 1
    took = [end["seconds"] for end in ends if end["end"] != "open"]
    return {
        "kinds": kinds,
        "first": min(took, default=None),
        "last": max(took, default=None),
        "closed": [code for _, code, _ in results],
        "after": [after["status"] if after else None for _, _, after in results],
    }


async def gaps(context):
    """Sends one octet at every second offset on `streams` streams, as far as flow control goes: how it ended and when.

    With `fill`, the octets between come at last, and the stream is an ordinary upload.
    """
    args = context.args
    connection = await Connection.open(context.target)
    quic = connection._quic
    fields = [*connection.fields("POST", args["path"])]
    ids = [connection.start_raw(fields, end=False) for _ in range(args["streams"])]
    await asyncio.sleep(0.2)
    streams = [quic._streams[each] for each in ids]
    sent, begun = 0, time.monotonic()
    offsets = [stream.sender._buffer_stop + 1 for stream in streams]
    limit = min(quic._remote_max_data // len(ids), streams[0].max_stream_data_remote) - 64
    sender = Holes(connection)
    while quic._close_event is None and offsets[0] < limit:
        for index, stream_id in enumerate(ids):
            pieces = []
            while len(pieces) < 100 and offsets[index] < limit:
                pieces.append((stream_id, offsets[index]))
                offsets[index] += 2
            sent += len(pieces)
            sender.send(pieces)
        await asyncio.sleep(0)
    context.event("sent", pieces=sent, seconds=time.monotonic() - begun)
    code = await closed(connection, args.get("patience", 10.0))
    result = {"pieces": sent, "closed_with": code, "seconds": time.monotonic() - begun}
    connection.abandon()
    return result


class Holes:
    """Sends STREAM frames of one octet each, which aioquic would never make, in packets of its own making."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, pieces):
        quic = self.connection._quic
        now = time.monotonic()
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid,
            is_client=True,
            max_datagram_size=quic._max_datagram_size,
            packet_number=quic._packet_number,
            peer_cid=quic._peer_cid.cid,
            peer_token=quic._peer_token,
            spin_bit=quic._spin_bit,
            version=quic._version,
        )
        crypto = quic._cryptos[tls.Epoch.ONE_RTT]
        builder.start_packet(QuicPacketType.ONE_RTT, crypto)
        for stream_id, offset in pieces:
            if builder.remaining_flight_space < 32:
                builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            frame = builder.start_frame(QuicFrameType.STREAM_BASE | 6, capacity=24)
            frame.push_uint_var(stream_id)
            frame.push_uint_var(offset)
            frame.push_uint_var(1)
            frame.push_bytes(b"x")
        datagrams, packets = builder.flush()
        quic._packet_number = builder.packet_number
        for packet in packets:
            packet.sent_time = now
            quic._loss.on_packet_sent(packet=packet, space=quic._spaces[tls.Epoch.ONE_RTT])
        for datagram in datagrams:
            self.connection._transport.sendto(datagram, (self.connection.target.host, self.connection.target.port))


SCENARIOS = [rapid_reset, induced_resets, slow, gaps]
