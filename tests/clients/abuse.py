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


async def room_for_a_stream(connection, seconds=30.0):
    """Waits for MAX_STREAMS; False when there is none in time or the connection is closed."""
    quic, end = connection._quic, time.monotonic() + seconds
    while quic._close_event is None and time.monotonic() < end:
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

    `how`: `head`, half a HEADERS frame; `body`, a body of which one octet comes; `trickle`, `pace` octets each second; `read`, no
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
                fields = [*connection.fields("POST", args["path"]), (b"content-length", b"100000")]
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
                    if connection.may_send(stream_id):
                        connection.http.send_data(stream_id, b"a" * args.get("pace", 1), end_stream=False)
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
    for stream in streams:
        # Its final size would contradict what is sent here.
        stream.sender.reset = lambda error_code: None
    sent, begun = 0, time.monotonic()
    offsets = [stream.sender._buffer_stop + 1 for stream in streams]
    limit = min(quic._remote_max_data // len(ids), streams[0].max_stream_data_remote) - 64
    sender = Packets(connection)
    while quic._close_event is None and offsets[0] < limit:
        for index, stream_id in enumerate(ids):
            pieces = []
            while len(pieces) < 100 and offsets[index] < limit:
                pieces.append(stream_frame(stream_id, offsets[index], b"x"))
                offsets[index] += 2
            sent += len(pieces)
            sender.send(pieces)
        await asyncio.sleep(0)
    context.event("sent", pieces=sent, seconds=time.monotonic() - begun)
    code = await closed(connection, args.get("patience", 10.0))
    result = {"pieces": sent, "closed_with": code, "seconds": time.monotonic() - begun}
    connection.abandon()
    return result


class Packets:
    """Makes 1-RTT packets of frames that aioquic would not send, or not in this order."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, frames):
        """`frames` are types and bodies; they share packets as far as they fit."""
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
        for frame_type, body in frames:
            if builder.remaining_flight_space < len(body) + 16:
                builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            builder.start_frame(frame_type, capacity=len(body) + 8).push_bytes(body)
        datagrams, packets = builder.flush()
        quic._packet_number = builder.packet_number
        for packet in packets:
            packet.sent_time = now
            quic._loss.on_packet_sent(packet=packet, space=quic._spaces[tls.Epoch.ONE_RTT])
        for datagram in datagrams:
            self.connection._transport.sendto(datagram, (self.connection.target.host, self.connection.target.port))


def stream_frame(stream_id, offset, data, end=False):
    body = encode_uint_var(stream_id) + encode_uint_var(offset) + encode_uint_var(len(data)) + data
    return QuicFrameType.STREAM_BASE | 6 | end, body


# === what is in a field section ===


async def sections(context):
    """Sends each section that is too much, on a connection of its own: the answer, and whether the connection is still good."""
    target = context.target
    probe = await Connection.open(target)
    base = probe.fields("GET", "/section")
    await probe.finish()

    def fields(*more):
        return lambda c: c.start_raw([*base, *more])

    def raw(block, declared=None):
        frame = encode_uint_var(1) + encode_uint_var(len(block) if declared is None else declared) + block
        return lambda c: c.raw_stream(frame)

    def trailers(*lines):
        def send(connection):
            stream_id = connection.start_raw(connection.fields("POST", "/hash"), end=False)
            connection.http.send_headers(stream_id, list(lines), end_stream=True)
            connection.transmit()
            return stream_id

        return send

    def instructions(data):
        def send(connection):
            encoder = connection.http._local_encoder_stream_id
            connection._quic.send_stream_data(encoder, data)
            connection.transmit()
            return connection.start_raw(base)

        return send

    # RFC 9204 §4.5.6: a literal of which the name is Huffman-coded; zeros have five bits.
    zeros = bytes([0b00001000, 0b01000010, 0b00010000, 0b10000100, 0b00100001]) * 5000
    huffman = bytes([0, 0, 0x50 | 0x01]) + bytes([0xFF]) + encode_prefix(len(zeros) - 127) + zeros
    hundred = [(b"x-%d" % n, b"v") for n in range(97)]
    cases = {
        "33_kib": fields(*[(b"x-%d" % n, b"v" * 11200) for n in range(3)]),
        "101_fields": fields(*hundred),
        "100_fields": fields(*hundred[:96]),
        "name_257": fields((b"n" * 257, b"v")),
        "name_256": fields((b"n" * 256, b"v")),
        "value_16_kib_and_1": fields((b"n", b"v" * (16 * 1024 + 1))),
        "value_16_kib": fields((b"n", b"v" * (16 * 1024))),
        "name_70_kb": raw(bytes([0, 0, 0x27]) + encode_prefix(70_000 - 7) + b"n" * 70_000 + b"\x01v"),
        "4_mb_declared": raw(bytes(500), 4_000_000),
        "1000_cookie_crumbs": fields(*[(b"cookie", b"a=b")] * 1000),
        "static_index_bomb": raw(bytes([0, 0]) + bytes([0xC0 | 17]) * 60_000),
        "huffman_bomb": raw(huffman),
        "101_trailers": trailers(*hundred, *hundred[:4]),
        "pseudo_trailer": trailers((b":path", b"/")),
        "dynamic_insert": instructions(bytes([0x40 | 1, ord("n"), 1, ord("v")])),
        "dynamic_capacity": instructions(bytes([0x3F, 0xE1, 0x1F])),
        "connect": lambda c: c.start_raw([(b":method", b"CONNECT"), (b":authority", b"localhost:443")], end=False),
        "extended_connect": lambda c: c.start_raw(
            [(b":method", b"CONNECT"), *base[1:], (b":protocol", b"websocket")], end=False
        ),
        "protocol_with_get": lambda c: c.start_raw([*base, (b":protocol", b"websocket")]),
        "upgrade": fields((b"upgrade", b"h2c")),
        "connection_upgrade": fields((b"connection", b"upgrade"), (b"upgrade", b"websocket")),
    }
    results = {}
    for name, send in cases.items():
        connection = await Connection.open(target)
        answer = await connection.answer(send(connection), 5.0)
        code = await closed(connection, 0.05)
        after = None if code is not None else (await connection.request("GET", "/")).status
        results[name] = {
            "status": answer.status,
            "end": answer.end,
            "reset_code": answer.reset_code,
            "closed_with": code,
            "after": after,
        }
        connection.abandon()
    return results


def encode_prefix(value):
    """The rest of an integer of RFC 7541 §5.1 after a full prefix."""
    data = b""
    while value >= 128:
        data += bytes([0x80 | value & 0x7F])
        value >>= 7
    return data + bytes([value])


async def bomb(context):
    """Opens `streams` requests with 31 KiB of fields each and takes nothing of their answers, until told to stop."""
    connection = await Connection.open(context.target, rate=0, window=2000)
    more = [(b"x-%d" % n, b"v" * 10_300) for n in range(3)]
    for _ in range(context.args["streams"]):
        connection.start_raw([*connection.fields("GET", context.args["path"]), *more])
        await asyncio.sleep(0.01)
    context.event("sent")
    ping = 0
    while not context.stopped.is_set() and connection._quic._close_event is None:
        ping += 1
        connection._quic.send_ping(ping)
        connection.transmit()
        await asyncio.sleep(0.5)
    code = await closed(connection, 0.0)
    connection.abandon()
    return {"closed_with": code}


# === frames and streams nobody knows ===


async def grease(context):
    """Unknown frames of 16 MiB, of which `octets` come, on request and control stream, and as many unknown streams as there may be."""
    args = context.args
    connection = await Connection.open(context.target)
    quic = connection._quic
    # 0x1f * N + 0x21 is reserved (RFC 9114 §7.2.8).
    frame = encode_uint_var(0x1F * 7 + 0x21) + encode_uint_var((1 << 24) - 1)
    request = connection.raw_stream(encode_uint_var(0x21) + encode_uint_var(3) + b"abc" + frame)
    control = connection.http._local_control_stream_id
    quic.send_stream_data(control, frame)
    for _ in range(args["octets"] // 10_000):
        for stream_id in (request, control):
            quic.send_stream_data(stream_id, bytes(10_000))
        connection.transmit()
        while quic._streams[request].sender._buffer.__len__() > 200_000 and quic._close_event is None:
            await asyncio.sleep(0.005)
    opened = 0
    while quic._close_event is None:
        stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
        if stream_id // 4 >= quic._remote_max_streams_uni:
            break
        quic.send_stream_data(stream_id, encode_uint_var(0x1F * opened + 0x21) + b"noise" * 100)
        opened += 1
        connection.transmit()
        await asyncio.sleep(0.01)
    context.event("sent", opened=opened)
    answer = await connection.request("GET", "/")
    code = await closed(connection, 0.1)
    connection.abandon()
    return {"opened": opened, "after": answer.to_json(), "closed_with": code}


async def priority_flood(context):
    """`count` PRIORITY_UPDATE frames (RFC 9218 §7.2) for closed streams and such as may come; then wrong ones."""
    results = {}
    for name, stream_id, value, count in [
        ("closed", 0, b"u=1", context.args["count"]),
        ("future", 80, b"u=1,i", context.args["count"]),
        ("no_request", 3, b"u=1", 1),
        ("beyond_limit", 1 << 40, b"u=1", 1),
        ("300_octets", 0, b"u=1" + b" " * 297, 1),
    ]:
        connection = await Connection.open(context.target)
        await connection.request("GET", "/")
        payload = encode_uint_var(stream_id) + value
        frame = encode_uint_var(0xF0700) + encode_uint_var(len(payload)) + payload
        control = connection.http._local_control_stream_id
        for _ in range(max(1, count // 1000)):
            connection._quic.send_stream_data(control, frame * min(count, 1000))
            connection.transmit()
            sender = connection._quic._streams[control].sender
            while len(sender._buffer) > 50_000 and connection._quic._close_event is None:
                await asyncio.sleep(0.002)
        code = await closed(connection, 0.3)
        after = None if code is not None else (await connection.request("GET", "/")).status
        results[name] = {"closed_with": code, "after": after}
        connection.abandon()
    return results


async def after_reset(context):
    """`count` requests of which head, body, trailers, end, RESET_STREAM and STOP_SENDING come in one packet, in any order."""
    args, done = context.args, 0
    while done < args["count"]:
        connection = await Connection.open(context.target)
        quic, packets = connection._quic, Packets(connection)
        section = connection.http._encode_headers
        for _ in range(500):
            if not await room_for_a_stream(connection, 0.5):
                break
            stream_id = quic.get_next_available_stream_id()
            # What it would say of a stream of which it has sent nothing contradicts what is sent here.
            quic._get_or_create_stream_for_send(stream_id).sender.reset = lambda error_code: None
            head = connection.raw_frame(1, section(stream_id, connection.fields("POST", args["path"])))
            body = connection.raw_frame(0, b"body" * context.random.randrange(1, 20))
            trailers = connection.raw_frame(1, section(stream_id, [(b"x-trailer", b"1")]))
            whole = head + body + trailers
            cut = sorted(context.random.sample(range(1, len(whole)), 3))
            pieces = [whole[a:b] for a, b in zip([0, *cut], [*cut, len(whole)])]
            frames, offset = [], 0
            for piece in pieces:
                frames.append(stream_frame(stream_id, offset, piece, end=offset + len(piece) == len(whole)))
                offset += len(piece)
            # Unknown codes, and those that mean something else, are as good as any (RFC 9114 §8).
            code = encode_uint_var(context.random.choice([H3_REQUEST_CANCELLED, 0x100, 0x10B, 0x1F * 9 + 0x21, 1 << 40]))
            if context.random.random() < 0.8:
                frames.append((QuicFrameType.RESET_STREAM, encode_uint_var(stream_id) + code + encode_uint_var(offset)))
            if context.random.random() < 0.5:
                frames.append((QuicFrameType.STOP_SENDING, encode_uint_var(stream_id) + code))
            if context.random.random() < 0.8:
                context.random.shuffle(frames)
            split = context.random.randrange(len(frames)) if context.random.random() < 0.3 else 0
            if split:
                packets.send(frames[:split])
                await asyncio.sleep(0)
            packets.send(frames[split:])
            done += 1
            if done % 20 == 0:
                await asyncio.sleep(0)
        if quic._close_event is not None:
            return {"done": done, "closed_with": quic._close_event.error_code, "reason": quic._close_event.reason_phrase}
        connection.abandon()
    connection = await Connection.open(context.target)
    after = await connection.request("GET", "/")
    await connection.finish()
    return {"done": done, "closed_with": None, "after": after.to_json()}


SCENARIOS = [
    rapid_reset,
    induced_resets,
    slow,
    gaps,
    sections,
    bomb,
    grease,
    priority_flood,
    after_reset,
]
