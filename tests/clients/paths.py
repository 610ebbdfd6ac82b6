"""Scenarios of a client that names other source addresses than its own: churn of paths, and a victim's address."""

import asyncio
import socket
import time

from flood import drain, udp
from h3client import Connection
from transport import packet

PING = b"\x01"


def from_elsewhere(target, address, data):
    """Sends one datagram from a port of `address` that is then given up."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.sendto(data, (target.host, target.port))
    sock.close()


async def churn(context):
    """Valid packets from `ports` new ports, and from one port of each of `addresses` addresses, within `seconds` each.

    Meanwhile the client's own path asks every tenth of a second: what it is answered, and the slowest answer.
    """
    args, target = context.args, context.target
    connection = await Connection.open(target)
    before = await connection.request("GET", "/")
    answered, failed, slowest = 0, [], 0.0
    ended = asyncio.Event()

    async def ask():
        nonlocal answered, slowest
        while not ended.is_set():
            answer = await connection.request("GET", "/bytes/10000", timeout=20.0)
            if answer.end != "clean" or answer.status != 200:
                failed.append(answer.to_json())
                return
            answered, slowest = answered + 1, max(slowest, answer.seconds)
            await asyncio.sleep(0.1)

    asking = asyncio.ensure_future(ask())
    sent = 0
    for addresses in [
        ["127.0.0.1"] * args["ports"],
        [f"127.4.{n // 250}.{n % 250 + 1}" for n in range(args["addresses"])],
    ]:
        begun = time.monotonic()
        for number, address in enumerate(addresses):
            if connection.closed_with is not None or asking.done():
                break
            from_elsewhere(target, address, packet(connection, PING))
            sent += 1
            if number % 10 == 0:
                due = begun + args["seconds"] * number / len(addresses)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
    ended.set()
    await asking
    after = await connection.request("GET", "/", timeout=20.0)
    result = {
        "sent": sent,
        "answered": answered,
        "failed": failed,
        "slowest": slowest,
        "before": before.to_json(),
        "after": after.to_json(),
        "closed_with": connection.closed_with,
    }
    await connection.finish()
    return result


async def spoof(context):
    """A client that says it is at `victim`: it asks for a long body and an echo from there, answers no challenge, and is
    itself silent until the server has come back to its own address, or `patience` seconds.

    Returns the octets sent from the victim's address and those sent there, how long after the first of them the client heard
    from the server at its own address, and the echo, which tells where the server thinks the client is.
    """
    args = context.args
    connection = await Connection.open(context.target)
    await connection.request("GET", "/")
    # Whatever of the handshake is still on its way.
    await asyncio.sleep(0.3)
    victim = udp(context.target, args["victim"])
    quic, transmit = connection._quic, connection.transmit
    spoofed = {"octets": 0, "packets": 0}

    def from_victim():
        for data, _ in quic.datagrams_to_send(now=time.monotonic()):
            victim.send(data)
            spoofed["octets"] += len(data)
            spoofed["packets"] += 1

    heard = asyncio.Event()
    receive = connection.datagram_received

    def hear(data, address):
        heard.set()
        receive(data, address)

    for own in connection.sockets:
        own.get_protocol().datagram_received = hear
    connection.transmit = lambda: None
    begun = time.monotonic()
    long = connection.start("GET", "/bytes/2000000")
    echo = connection.start("GET", "/echo", keep=True)
    from_victim()
    for _ in range(args.get("more", 0)):
        # Each makes room for three times its size.
        data = packet(connection, PING + bytes(1100))
        victim.send(data)
        spoofed["octets"] += len(data)
        spoofed["packets"] += 1
    to_victim = 0
    while not heard.is_set() and time.monotonic() - begun < args["patience"]:
        to_victim += sum(len(data) for data in drain(victim))
        await asyncio.sleep(0.01)
    back = time.monotonic() - begun if heard.is_set() else None
    connection.transmit = transmit
    connection.transmit()
    answers = [(await connection.answer(stream, 30.0)).to_json() for stream in (echo, long)]
    to_victim += sum(len(data) for data in drain(victim))
    victim.close()
    closed = connection.closed_with
    await connection.finish()
    return {
        "from_victim": spoofed["octets"],
        "packets": spoofed["packets"],
        "to_victim": to_victim,
        "back": back,
        "echo": answers[0],
        "long": answers[1],
        "closed_with": closed,
    }


async def move(context):
    """Opens a connection, asks for an echo, moves to the address `to`, asks again, and stays there until `stop`.

    Says `moved` with both echoes.
    """
    connection = await Connection.open(context.target)
    before = await connection.request("GET", "/echo")
    connection.target.bind = context.args["to"]
    await connection.rebind()
    # The server has asked there, and has been answered, when a second exchange is over.
    for _ in range(3):
        after = await connection.request("GET", "/echo")
        await asyncio.sleep(0.1)
    context.event("moved", before=before.to_json(), after=after.to_json())
    await context.stopped.wait()
    await connection.finish()
    return {"challenges": connection._quic.path_challenges}


SCENARIOS = [churn, spoof, move]
