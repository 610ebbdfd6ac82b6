"""Scenarios of CRYPTO frames in odd places: far away, with gaps, and a ClientHello in single octets from its end."""

import asyncio
import time

from aioquic.buffer import encode_uint_var as var
from aioquic.tls import Epoch

from early import Early
from flood import drain, udp
from h3client import Connection
from transport import inject

SIZE = 1200
# Header, length, packet number and tag of an Initial with two IDs of 8 octets.
AROUND = 60


def crypto(offset, data):
    return b"\x06" + var(offset) + var(len(data)) + data


def packed(frames, room):
    """Frames in payloads of at most `room` octets."""
    payload = b""
    for frame in frames:
        if len(payload) + len(frame) > room:
            yield payload
            payload = b""
        payload += frame
    yield payload


def initial(quic, payload):
    """An Initial packet with this payload, in a datagram of 1,200 octets."""
    number = quic._packet_number
    quic._packet_number += 1
    dcid, scid = quic._peer_cid.cid, quic.host_cid
    head = b"\xc3\0\0\0\1" + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid + b"\0"
    payload += bytes(SIZE - len(head) - 2 - 4 - 16 - len(payload))
    length = (0x4000 | 4 + len(payload) + 16).to_bytes(2, "big")
    head += length + number.to_bytes(4, "big")
    return quic._cryptos_initial[quic._version].encrypt_packet(head, payload, number)


def gaps(count):
    """Single octets at every second offset, the first of all left out."""
    return (crypto(2 * n + 1, b"x") for n in range(count))


async def chaos(context):
    """A handshake whose ClientHello comes in single octets, the last one first: how it ended."""
    early = Early(context.target)
    quic = early.quic
    hello = bytes(quic._crypto_streams[Epoch.INITIAL].sender._buffer)
    # As if they had been sent: what the server does not have is not sent again before it has answered.
    quic.datagrams_to_send(now=time.monotonic())
    frames = (crypto(at, hello[at : at + 1]) for at in reversed(range(len(hello))))
    sock = udp(context.target)
    datagrams = [initial(quic, payload) for payload in packed(frames, SIZE - AROUND)]
    for datagram in datagrams:
        sock.send(datagram)
    begun = time.monotonic()
    first = []
    while not first and time.monotonic() - begun < 5.0:
        await asyncio.sleep(0.005)
        first = drain(sock)
    for data in first:
        quic.receive_datagram(data, (context.target.host, context.target.port), now=time.monotonic())
    await early.go_on(sock, lambda: early.handshake is not None)
    early.quic.close()
    for data, _ in early.quic.datagrams_to_send(now=time.monotonic()):
        sock.send(data)
    sock.close()
    return {"octets": len(hello), "datagrams": len(datagrams), "connected": True, "answered": bool(first)}


async def crypto_gaps(context):
    """`count` single octets with a gap before each, in Initial packets or in 1-RTT ones (`early`), then a second of silence; or one
    octet `far` away. What it was closed with."""
    args = context.args
    frames = [crypto(args["far"], b"abcd")] if "far" in args else list(gaps(args["count"]))
    if not args["early"]:
        connection = await Connection.open(context.target)
        await connection.request("GET", "/")
        for number, payload in enumerate(packed(frames, SIZE - AROUND)):
            inject(connection, payload)
            if number % 10 == 0:
                await asyncio.sleep(0.002)
        await asyncio.sleep(1.0)
        context.event("sent")
        await context.stopped.wait()
        closed = connection.closed_with
        await connection.finish()
        return {"closed_with": closed}
    early = Early(context.target)
    quic = early.quic
    quic.datagrams_to_send(now=time.monotonic())
    sock = udp(context.target)
    for number, payload in enumerate(packed(frames, SIZE - AROUND)):
        sock.send(initial(quic, payload))
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    await asyncio.sleep(1.0)
    context.event("sent")
    await context.stopped.wait()
    for data in drain(sock):
        quic.receive_datagram(data, (context.target.host, context.target.port), now=time.monotonic())
    closed = quic._close_event and quic._close_event.error_code
    sock.close()
    return {"closed_with": closed}


SCENARIOS = [chaos, crypto_gaps]
