"""Scenarios of clients that open connections and never finish: amplification, floods of Initials, tokens of a Retry."""

import asyncio
import os
import socket
import time

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from h3client import Connection

# Where a long header has the length of its destination connection ID (RFC 9000 §17.2).
DCID = 5


class FirstFlight:
    """A QUIC client that has written its first flight and has no socket."""

    def __init__(self, target, token=b""):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=[target.alpn], server_name=target.server_name)
        configuration.max_datagram_size = 1200
        self.quic = QuicConnection(configuration=configuration)
        self.quic.connect((target.host, target.port), now=time.monotonic())
        self.datagrams = [data for data, _ in self.quic.datagrams_to_send(now=time.monotonic())]


def udp(target, source=None):
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((source or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), 0))
    sock.connect((target.host, target.port))
    sock.setblocking(False)
    return sock


def drain(sock):
    """All datagrams that have come."""
    datagrams = []
    while True:
        try:
            datagrams.append(sock.recv(65536))
        except (BlockingIOError, ConnectionRefusedError):
            return datagrams


async def amplify(context):
    """Sends `initials` Initials of one first flight and then nothing for `seconds`: octets sent and received.

    With `cut`, the Initial is cut to that length.
    """
    args = context.args
    flight = FirstFlight(context.target)
    sock = udp(context.target)
    sent = received = datagrams = 0
    data = flight.datagrams[0]
    data = data[: args.get("cut", len(data))]
    for _ in range(args.get("initials", 1)):
        sock.send(data)
        sent += len(data)
    end = time.monotonic() + args["seconds"]
    while time.monotonic() < end:
        for data in drain(sock):
            received += len(data)
            datagrams += 1
        await asyncio.sleep(0.02)
    sock.close()
    return {"sent": sent, "received": received, "datagrams": datagrams}


async def initial_flood(context):
    """Sends `count` Initials with connection IDs of their own from `sources` addresses in `seconds`, and never answers.

    Says `flooding` when the half of them are sent. Returns what came back.
    """
    args = context.args
    sources = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(args["sources"])]
    sockets = [udp(context.target, source) for source in sources]
    flights = [FirstFlight(context.target).datagrams[0] for _ in range(args["count"])]
    count, begun = args["count"], time.monotonic()
    sent = retries = octets = 0
    for number in range(count):
        sock = sockets[number % len(sockets)]
        data = flights[number]
        try:
            sock.send(data)
            sent += len(data)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        if number == count // 2:
            context.event("flooding", sent=number)
        due = begun + args["seconds"] * number / count
        if number % 50 == 0:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for each in sockets:
                for answer in drain(each):
                    octets += len(answer)
                    retries += answer[0] & 0xF0 == 0xF0
    await asyncio.sleep(0.2)
    for each in sockets:
        for answer in drain(each):
            octets += len(answer)
            retries += answer[0] & 0xF0 == 0xF0
        each.close()
    return {"sent": sent, "received": octets, "retries": retries, "seconds": time.monotonic() - begun}


async def answer_to(sock, data, seconds=1.0):
    """Sends a datagram; the first that comes back."""
    drain(sock)
    sock.send(data)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for answer in drain(sock):
            return answer
        await asyncio.sleep(0.01)
    return None


async def retry_tokens(context):
    """Gets a Retry, comes back with its token, changed in every octet, from elsewhere, late, and at last as it is.

    Each is `Retry`, `silence`, or `handshake` (a packet of ours with a long header of another type).
    """
    target, args = context.target, context.args

    def kind(answer):
        if answer is None:
            return "silence"
        return "Retry" if answer[0] & 0xF0 == 0xF0 else "handshake"

    async def second_flight(sock):
        flight = FirstFlight(target)
        answer = await answer_to(sock, flight.datagrams[0], 5.0)
        first = kind(answer)
        if first != "Retry":
            return first, None, None
        flight.quic.receive_datagram(answer, (target.host, target.port), now=time.monotonic())
        again = [data for data, _ in flight.quic.datagrams_to_send(now=time.monotonic())][0]
        # Token length is a varint of two octets here: after first octet, version and both connection IDs.
        at = 6 + again[DCID]
        at += 1 + again[at]
        length = int.from_bytes(again[at : at + 2], "big") & 0x3FFF
        if again[at] & 0xC0 == 0:
            return first, again, (at + 1, again[at])
        return first, again, (at + 2, length)

    sock = udp(target)
    first, again, token = await second_flight(sock)
    result = {"first": first}
    if again is None:
        return result
    start, length = token
    result["token_length"] = length
    changed = []
    for place in range(start, start + length):
        data = bytearray(again)
        data[place] ^= 0x01
        changed.append(kind(await answer_to(sock, bytes(data), 0.02)))
    result["changed"] = sorted(set(changed))
    elsewhere = udp(target, "127.0.0.2")
    result["other_address"] = kind(await answer_to(elsewhere, again, 0.5))
    other_port = udp(target)
    result["other_port"] = kind(await answer_to(other_port, again, 0.5))
    result["as_it_is"] = kind(await answer_to(sock, again, 5.0))
    late = udp(target)
    _, old, _ = await second_flight(late)
    await asyncio.sleep(args["ttl"] + 0.5)
    result["late"] = kind(await answer_to(late, old, 0.5))
    return result


def first_packet(datagram):
    """The Initial at the start of a datagram: aioquic pads the datagram, not the packet (RFC 9000 §17.2.2)."""
    at = 6 + datagram[DCID]
    at += 1 + datagram[at]
    for _ in range(2):
        # The token's length, then that of the rest.
        size = 1 << (datagram[at] >> 6)
        value = int.from_bytes(datagram[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
        at += size + value
    return datagram[:at]


async def coalesced(context):
    """An Initial with packets of other connections behind it in the same datagram, `count` times; then whether all is well."""
    sock = udp(context.target)
    for number in range(context.args["count"]):
        if number % max(20, context.args["count"] // 50) == 0:
            # Below the number of half-open connections from which on a token is asked for.
            packet = first_packet(FirstFlight(context.target).datagrams[0])
        tail = b""
        while len(packet) + len(tail) < 1200:
            # Initial, 0-RTT and Handshake by turns, 4 octets of payload, an ID of their own.
            head = bytes([0xC0 | (len(tail) // 25 % 3) << 4]) + b"\0\0\0\1"
            ids = b"\x08" + os.urandom(8) + b"\0"
            tail += head + ids + (b"\0" if head[0] == 0xC0 else b"") + b"\x04" + os.urandom(4)
        sock.send(packet + tail)
        if number % 10 == 0:
            # Not faster than they are taken: what the socket drops says nothing.
            await asyncio.sleep(0.005)
            drain(sock)
    connection = await Connection.open(context.target)
    answer = await connection.request("GET", "/")
    await connection.finish()
    return answer.to_json()


SCENARIOS = [amplify, initial_flood, retry_tokens, coalesced]
