"""Scenarios of a peer that breaks QUIC itself: single frames, and floods of them, in packets made by hand."""

import asyncio
import os
import time

from aioquic.buffer import encode_uint_var as var
from aioquic.quic.packet import QuicFrameType
from aioquic.tls import Epoch

from h3client import Connection, PacedQuic

# Error codes (RFC 9000 §20.1).
FLOW_CONTROL, STREAM_LIMIT, STREAM_STATE, FINAL_SIZE, FRAME_ENCODING = 0x3, 0x4, 0x5, 0x6, 0x7
CONNECTION_ID_LIMIT, PROTOCOL_VIOLATION, CRYPTO_BUFFER = 0x9, 0xA, 0xD


def packet(connection, payload, bits=0):
    """A 1-RTT packet with this payload, under the connection's keys and with its next packet number.

    `bits` are mixed into its first octet.
    """
    quic = connection._quic
    number = quic._packet_number
    quic._packet_number += 1
    crypto = quic._cryptos[Epoch.ONE_RTT]
    # Short header, fixed bit, a packet number of four octets.
    first = 0x43 | (crypto.key_phase << 2) | bits
    header = bytes([first]) + quic._peer_cid.cid + number.to_bytes(4, "big")
    return crypto.encrypt_packet(header, payload, number)


def inject(connection, payload, bits=0):
    connection.sockets[-1].sendto(packet(connection, payload, bits), (connection.target.host, connection.target.port))


def stream(stream_id, offset, data, fin=False):
    kind = 0x0E | fin
    return bytes([kind]) + var(stream_id) + var(offset) + var(len(data)) + data


def new_id(sequence, retire_prior_to, length=8):
    return b"\x18" + var(sequence) + var(retire_prior_to) + bytes([length]) + os.urandom(length) + os.urandom(16)


# Name, payload of one packet, the codes of RFC 9000 (or 9221) for it. PROTOCOL_VIOLATION may stand for any (§11), and is listed
# where quiche says so.
ERRORS = {
    # §12.4: a packet without a frame, a frame of an unknown type, a type that is cut short
    "A14_no_frame": (b"", {PROTOCOL_VIOLATION}),
    "A14_unknown_frame_type": (var(0x3F) + bytes(8), {FRAME_ENCODING, PROTOCOL_VIOLATION}),
    "A14_frame_type_cut_short": (b"\x01\x80", {FRAME_ENCODING, PROTOCOL_VIOLATION}),
    "A14_stream_frame_cut_short": (b"\x0a\x00\x20abc", {FRAME_ENCODING, PROTOCOL_VIOLATION}),
    # §12.4 table 3: frames that only servers send
    "A14_new_token_of_a_client": (b"\x07\x04abcd", {PROTOCOL_VIOLATION}),
    "A14_handshake_done_of_a_client": (b"\x1e", {PROTOCOL_VIOLATION}),
    # §13.1: an acknowledgement of what was never sent
    "A05_ack_of_nothing": (b"\x02" + var(1 << 20) + var(0) + var(0) + var(0), {PROTOCOL_VIOLATION}),
    "A20_ack_range_below_zero": (b"\x02" + var(3) + var(0) + var(0) + var(9), {FRAME_ENCODING}),
    # §7.5
    "A06_crypto_far_away": (b"\x06" + var(1 << 20) + var(4) + b"abcd", {CRYPTO_BUFFER}),
    # §19.15
    "A08_retire_prior_to_after_itself": (new_id(9, 10), {FRAME_ENCODING}),
    "A08_empty_connection_id": (b"\x18" + var(9) + var(0) + b"\x00" + os.urandom(16), {FRAME_ENCODING}),
    "A08_connection_id_of_21_octets": (new_id(9, 0, 21), {FRAME_ENCODING}),
    "A08_too_many_connection_ids": (b"".join(new_id(n, 0) for n in range(20, 32)), {CONNECTION_ID_LIMIT}),
    # §19.16: retiring what was not issued
    "A09_retire_unsent": (b"\x19" + var(5000), {PROTOCOL_VIOLATION}),
    # §4.6, §19.11
    "A19_max_streams_too_large": (b"\x12" + var((1 << 60) + 1), {FRAME_ENCODING, STREAM_LIMIT}),
    "A19_streams_blocked_too_large": (b"\x16" + var((1 << 60) + 1), {FRAME_ENCODING, STREAM_LIMIT}),
    "A19_stream_beyond_the_limit": (stream(4 * 5000, 0, b"x"), {STREAM_LIMIT}),
    "A19_unidirectional_beyond_the_limit": (stream(4 * 5000 + 2, 0, b"x"), {STREAM_LIMIT}),
    # §19.4, §19.5, §19.8, §19.10: streams that cannot be meant
    "A19_data_on_a_stream_of_ours": (stream(1, 0, b"x"), {STREAM_STATE}),
    "A19_data_on_a_stream_that_only_sends": (stream(3, 0, b"x"), {STREAM_STATE}),
    "A19_stop_sending_on_a_stream_that_only_receives": (b"\x05" + var(2) + var(0), {STREAM_STATE}),
    "A19_max_stream_data_on_a_stream_that_only_receives": (b"\x11" + var(2) + var(9), {STREAM_STATE}),
    # §4.1, §4.5
    "A19_data_beyond_the_window": (stream(40, (1 << 40), b"x"), {FLOW_CONTROL}),
    "A19_offset_beyond_everything": (stream(0, (1 << 62) - 1, b"x"), {FRAME_ENCODING, FLOW_CONTROL}),
    "A19_two_final_sizes": (stream(40, 0, b"abc", True) + stream(40, 0, b"abcdef", True), {FINAL_SIZE}),
    "A19_reset_with_another_size": (stream(40, 0, b"abc") + b"\x04" + var(40) + var(0) + var(1), {FINAL_SIZE}),
    # RFC 9221 §3: not negotiated
    "A18_datagram_not_negotiated": (b"\x31\x04abcd", {PROTOCOL_VIOLATION, FRAME_ENCODING}),
}


async def transport_errors(context):
    """Breaks one connection for each case of `row` with one packet: the code it was closed with, after how long, and those the RFC
    allows."""
    probe = await Connection.open(context.target)
    results = {}
    for name, (payload, allowed) in ERRORS.items():
        if not name.startswith(context.args["row"]):
            continue
        connection = await Connection.open(context.target)
        await connection.request("GET", "/")
        begun = time.monotonic()
        inject(connection, payload)
        try:
            await asyncio.wait_for(connection.wait_closed(), 3.0)
        except (TimeoutError, asyncio.TimeoutError):
            pass
        seconds = time.monotonic() - begun
        results[name] = {"closed_with": connection.closed_with, "allowed": sorted(allowed), "seconds": seconds}
        connection.abandon()
    bystander = await probe.request("GET", "/")
    await probe.finish()
    return {"cases": results, "bystander": bystander.to_json()}


def floods(rng):
    """Name, the payload of the Nth packet of a flood."""
    ranges = b"".join(var(0) + var(0) for _ in range(300))
    return {
        "A07_path_challenge": lambda n: (b"\x1a" + rng.randbytes(8)) * 40,
        "A08_new_connection_id": lambda n: new_id(n + 100, n + 100),
        "A09_retire_connection_id": lambda n: b"\x19" + var(n % 8),
        "A19_streams_blocked": lambda n: (b"\x16" + var(n % 100)) * 100,
        "A18_ping": lambda n: b"\x01" * 200,
        "A18_padding": lambda n: bytes(1100),
        "A20_ack_ranges": lambda n: b"\x02" + var(700) + var(0) + var(300) + var(0) + ranges,
        "A20_one_octet_of_a_stream_again_and_again": lambda n: stream(40, 0, b"x") * 100,
        "A19_max_data": lambda n: (b"\x10" + var(n)) * 100,
    }


async def transport_flood(context):
    """Sends `count` packets of one flood (`name`) while a second connection asks every 50 ms: what became of both."""
    args = context.args
    connection = await Connection.open(context.target)
    await connection.request("GET", "/")
    honest = await Connection.open(context.target)
    make = floods(context.random)[args["name"]]
    answered, slowest, sent = 0, 0.0, 0
    loop = asyncio.get_running_loop()

    async def ask():
        nonlocal answered, slowest
        while True:
            begun = loop.time()
            answer = await honest.request("GET", "/", timeout=20.0)
            if answer.end != "clean" or answer.status != 200:
                return answer.to_json()
            answered += 1
            slowest = max(slowest, loop.time() - begun)
            await asyncio.sleep(0.05)

    asking = asyncio.ensure_future(ask())
    for number in range(args["count"]):
        if connection.closed_with is not None:
            break
        inject(connection, make(number))
        sent += 1
        if number % 20 == 0:
            # Lets the other connection, and what comes back, have their turn.
            await asyncio.sleep(0.001)
    failed = asking.result() if asking.done() else None
    asking.cancel()
    last = await honest.request("GET", "/", timeout=20.0)
    await honest.finish()
    await connection.finish()
    return {
        "sent": sent,
        "closed_with": connection.closed_with,
        "answered": answered,
        "slowest": slowest,
        "failed": failed,
        "last": last.to_json(),
    }


async def finished_twice(context):
    """A handshake whose client says its TLS Finished twice in one packet, which nothing forbids (RFC 9000 §13.3)."""
    write = PacedQuic._write_crypto_frame

    def twice(quic, builder, space, stream):
        sender, frames = stream.sender, []
        take = sender.get_frame
        sender.get_frame = lambda *limits: frames.append(take(*limits)) or frames[-1]
        written = write(quic, builder, space, stream)
        del sender.get_frame
        if written and stream is quic._crypto_streams[Epoch.HANDSHAKE]:
            frame = frames[-1]
            again = builder.start_frame(QuicFrameType.CRYPTO, capacity=len(frame.data) + 11)
            for part in (var(frame.offset), var(len(frame.data)), frame.data):
                again.push_bytes(part)
        return written

    PacedQuic._write_crypto_frame = twice
    connection = await Connection.open(context.target)
    answer = await connection.request("GET", "/", timeout=10.0)
    result = {"answer": answer.to_json(), "closed_with": connection.closed_with}
    await connection.finish()
    return result


async def optimistic_acks(context):
    """Asks for `path` and acknowledges, every `step` datagrams, all numbers up to the newest seen, whether they came or not, and
    `ahead` more; says nothing else: what the connection was closed with, and after how much."""
    args = context.args
    connection = await Connection.open(context.target, rate=1 << 30, window=1 << 28)
    await connection.request("GET", "/")
    quic, receive = connection._quic, connection.datagram_received
    space = next(space for space in reversed(quic._loss.spaces) if space.largest_received_packet > 0)
    seen = {"packets": 0, "octets": 0}
    connection.start("GET", args["path"])
    connection.transmit = lambda: None

    def hear(data, address):
        seen["packets"], seen["octets"] = seen["packets"] + 1, seen["octets"] + len(data)
        receive(data, address)
        if seen["packets"] % args["step"] == 0 and quic._close_event is None:
            largest = space.largest_received_packet + args["ahead"]
            inject(connection, b"\x02" + var(largest) + var(0) + var(0) + var(largest))

    for own in connection.sockets:
        own.get_protocol().datagram_received = hear
    # Without timers the connection does not say that it is closed.
    end = time.monotonic() + args["patience"]
    while quic._close_event is None and time.monotonic() < end:
        await asyncio.sleep(0.01)
    closed = quic._close_event and quic._close_event.error_code
    connection.abandon()
    return {"closed_with": closed, **seen}


async def key_updates(context):
    """`count` key updates (RFC 9001 §6), each with a PING; waiting for the answer to each, or not."""
    args = context.args
    connection = await Connection.open(context.target)
    await connection.request("GET", "/")
    done = 0
    for _ in range(args["count"]):
        if connection.closed_with is not None:
            break
        connection._quic.request_key_update()
        if args["patient"]:
            answer = await connection.request("GET", "/", timeout=5.0)
            if answer.end != "clean":
                break
        else:
            inject(connection, b"\x01")
            await asyncio.sleep(0)
        done += 1
    last = await connection.request("GET", "/", timeout=3.0)
    closed = connection.closed_with
    await connection.finish()
    return {"done": done, "closed_with": closed, "last": last.to_json()}


SCENARIOS = [transport_errors, transport_flood, finished_twice, optimistic_acks, key_updates]
