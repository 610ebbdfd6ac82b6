"""Scenarios of datagrams that belong to no connection: noise, odd sizes and versions, packets of connections that are gone."""

import asyncio
import time

from flood import DCID, answer_to, drain, first_packet, udp, FirstFlight
from h3client import Connection

VERSION_1 = b"\0\0\0\1"
UNKNOWN_VERSION = b"\xfa\xce\xb0\x0c"
# A short header, a connection ID of ours, and 5 octets more than a token (RFC 9000 §10.3).
RESET_MIN, RESET_MAX = 21, 42
TOKEN = 16


def long_header(version, dcid, scid, size, first=0xC0):
    head = bytes([first]) + version + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    return head + bytes(max(0, size - len(head)))


async def version_negotiation(context):
    """What is answered to versions nobody speaks: for each case, the trigger's size and what came back of which shape."""
    rng = context.random
    sock = udp(context.target)
    cases = {}
    for name, dcid, scid, size, first in [
        ("of 1200 octets", 8, 8, 1200, 0xC0),
        ("of 1200 octets, without the fixed bit", 8, 8, 1200, 0x80),
        ("of 1200 octets, with empty IDs", 0, 0, 1200, 0xC0),
        ("of 1200 octets, with IDs of 255", 255, 255, 1200, 0xC0),
        ("of 1452 octets, with IDs of 20", 20, 20, 1452, 0xC0),
        ("of 65507 octets", 8, 8, 65507, 0xC0),
        ("of 1199 octets", 8, 8, 1199, 0xC0),
        ("of 1199 octets, with IDs of 255", 255, 255, 1199, 0xC0),
        ("of 40 octets", 8, 8, 40, 0xC0),
    ]:
        dcid, scid = rng.randbytes(dcid), rng.randbytes(scid)
        answer = await answer_to(sock, long_header(UNKNOWN_VERSION, dcid, scid, size, first), 0.3)
        case = {"trigger": size, "answer": None}
        if answer is not None:
            swapped = bytes([len(scid)]) + scid + bytes([len(dcid)]) + dcid
            versions = answer[5 + len(swapped) :]
            offered = [versions[at : at + 4].hex() for at in range(0, len(versions), 4)]
            whole = answer[0] & 0x80 == 0x80 and answer[1:5] == bytes(4) and answer[5 : 5 + len(swapped)] == swapped
            case |= {"answer": len(answer), "whole": whole, "versions": offered}
        cases[name] = case
    # RFC 9000 §6.1: what is itself Version Negotiation is answered by nobody; version 1 is not negotiated.
    for name, version in [("version 0", bytes(4)), ("version 1, no Initial in it", VERSION_1)]:
        answer = await answer_to(sock, long_header(version, bytes(8), bytes(8), 1200), 0.3)
        cases[name] = {"trigger": 1200, "answer": None if answer is None else len(answer), "versions": []}
    sock.close()
    return cases


def odd_datagram(rng, initial):
    """One that no client sends: of any size, dressed as any packet, or an Initial with an octet changed."""
    shape = rng.randrange(8)
    if shape == 0:
        return rng.randbytes(rng.randrange(21))
    if shape == 1:
        data = bytearray(initial)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(60)] = rng.randrange(256)
        return bytes(data)
    if shape == 2:
        return long_header(bytes(4), rng.randbytes(8), rng.randbytes(8), rng.choice([20, 1200]))
    if shape == 3:
        return long_header(UNKNOWN_VERSION, rng.randbytes(255), rng.randbytes(255), rng.choice([530, 1199]))
    if shape == 4:
        # Version 1 and an ID longer than version 1 has (RFC 9000 §17.2).
        return long_header(VERSION_1, rng.randbytes(rng.choice([21, 255])), b"", 1200)
    if shape == 5:
        # No fixed bit.
        return bytes([rng.randrange(0x40)]) + rng.randbytes(rng.choice([20, 60, 1199]))
    if shape == 6:
        return bytes([0x40 | rng.randrange(0x40)]) + rng.randbytes(rng.choice([20, 60, 1199]))
    return rng.randbytes(rng.choice([22, 60, 300, 1200, 1452]))


async def odd_datagrams(context):
    """Sends `count` odd datagrams as fast as they are taken, every thousandth empty or of 65,507 octets: what came back."""
    rng, count = context.random, context.args["count"]
    sock = udp(context.target)
    initial = first_packet(FirstFlight(context.target).datagrams[0])
    stock = [odd_datagram(rng, initial) for _ in range(min(count, 5000))]
    sent = octets = refused = 0
    answers, back = 0, 0
    for number in range(count):
        data = stock[number % len(stock)]
        if number % 1000 == 0:
            data = rng.randbytes(65507) if number % 2000 else b""
        try:
            sock.send(data)
            sent, octets = sent + 1, octets + len(data)
        except (BlockingIOError, ConnectionRefusedError):
            refused += 1
        if number % 50 == 0:
            for answer in drain(sock):
                answers, back = answers + 1, back + len(answer)
            await asyncio.sleep(context.args.get("apart", 0.0))
    await asyncio.sleep(0.2)
    for answer in drain(sock):
        answers, back = answers + 1, back + len(answer)
    sock.close()
    return {"sent": sent, "octets": octets, "refused": refused, "answers": answers, "answered_octets": back}


async def stale_ids(target, count):
    """Connection IDs of `count` connections with the tokens that came with them, and the connections, forgotten in silence."""
    known = {}
    for _ in range(count):
        connection = await Connection.open(target)
        await connection.request("GET", "/")
        quic = connection._quic
        for issued in [quic._peer_cid, *quic._peer_cid_available]:
            if issued.stateless_reset_token:
                known[issued.cid] = bytes(issued.stateless_reset_token)
        connection.abandon()
    return known


def short_packet(rng, cid, size):
    return (bytes([0x40 | rng.randrange(0x40)]) + cid + rng.randbytes(size))[:size]


async def resets(context):
    """Collects the IDs of `connections`, says `collected`, and after `stop` (the server is another by then) sends packets
    with them: one of each size, floods from one and from many sources, resets sent back, IDs that never were."""
    target, rng = context.target, context.random
    known = await stale_ids(target, context.args["connections"])
    context.event("collected", ids=len(known))
    await context.stopped.wait()
    ids = list(known)
    result = {"ids": len(ids), "tokens": len(set(known.values()))}

    # Of each size, slowly: each ID in turn.
    sock = udp(target)
    sizes, believed, found = {}, 0, []
    for number, size in enumerate([*range(1, 60), 100, 1200]):
        cid = ids[number % len(ids)]
        answer = await answer_to(sock, short_packet(rng, cid, size), 0.15 if size < 22 else 1.0)
        sizes[size] = None if answer is None else len(answer)
        if answer is not None:
            believed += answer[-TOKEN:] == known[cid] and answer[0] & 0xC0 == 0x40
            found.append(answer)
        await asyncio.sleep(0.02)
    result |= {"sizes": sizes, "believed": believed}

    # A reset sent back to who has sent it.
    echoes = 0
    for answer in found:
        echoes += await answer_to(sock, answer, 0.02) is not None
    result["echoes"] = echoes
    sock.close()

    async def storm(sockets, packets, packet):
        begun, answered = time.monotonic(), 0
        for number in range(packets):
            try:
                sockets[number % len(sockets)].send(packet(number))
            except (BlockingIOError, ConnectionRefusedError):
                pass
            if number % 25 == 0:
                await asyncio.sleep(0.002)
                answered += sum(len(drain(each)) for each in sockets)
        await asyncio.sleep(0.3)
        answered += sum(len(drain(each)) for each in sockets)
        for each in sockets:
            each.close()
        return {"answered": answered, "seconds": time.monotonic() - begun}

    packets = context.args["packets"]
    gone = lambda number: short_packet(rng, ids[number % len(ids)], 60)
    result["one_source"] = await storm([udp(target, "127.3.0.1")], packets, gone)
    many = [udp(target, f"127.3.{n // 250 + 1}.{n % 250 + 1}") for n in range(200)]
    result["many_sources"] = await storm(many, packets, gone)
    result["random"] = await storm([udp(target, "127.3.0.2")], packets, lambda number: b"\x41" + rng.randbytes(59))

    # An oracle would be who is told that a connection is gone which is not (RFC 9000 §21.11).
    alive = await Connection.open(target)
    await alive.request("GET", "/")
    living = [issued.cid for issued in [alive._quic._peer_cid, *alive._quic._peer_cid_available]]
    other = [udp(target, "127.3.0.3")]
    result["living"] = await storm(other, 500, lambda number: short_packet(rng, living[number % len(living)], 60))
    result["living"]["after"] = (await alive.request("GET", "/")).to_json()
    await alive.finish()
    return result


SCENARIOS = [version_negotiation, odd_datagrams, resets]
