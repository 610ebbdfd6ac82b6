"""What a client sees of QUIC versions and of ECN (RFC 9000 §6, §13.4; RFC 9369)."""

import asyncio
import os
import socket

from aioquic.quic import events
from aioquic.quic.packet import QuicFrameType, QuicProtocolVersion

from h3client import Connection, Failed, PacedQuic, configuration

VERSION_1, VERSION_2 = int(QuicProtocolVersion.VERSION_1), int(QuicProtocolVersion.VERSION_2)
ECT_0, ECN_BITS = 0b10, 0b11


def initial(version, dcid, scid, size):
    """The invariant part of a long header (RFC 8999 §5.1), filled up with what only the version's owner could read."""
    head = b"\xc3" + version.to_bytes(4, "big") + b"".join(bytes([len(each)]) + each for each in (dcid, scid))
    return head + os.urandom(max(0, size - len(head)))


async def versions(context):
    """Clients that speak version 2 alone or rather, and datagrams of other versions with what they were answered."""
    target = context.target
    preferred = await Connection.begin(target, supported_versions=[VERSION_2, VERSION_1], original_version=VERSION_2)
    await asyncio.wait_for(preferred.wait_connected(), 10.0)
    got = await preferred.request("GET", "/")
    spoken = preferred._quic._version
    await preferred.finish()
    try:
        alone = await Connection.open(target, supported_versions=[VERSION_2], original_version=VERSION_2)
        await alone.finish()
        only = "connected"
    except Failed as failure:
        only = str(failure)

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((target.host, target.port))
    udp.setblocking(False)
    # Too small to open a connection of any version with, and the version that means the answer itself: not to be answered,
    # which shows in what the next one is answered with.
    udp.send(initial(VERSION_2, b"small678", b"small678", 1199))
    udp.send(initial(0, b"answer78", b"answer78", 1200))
    answers = []
    for version, dcid, scid, size in [
        (VERSION_2, b"d" * 8, b"s" * 8, 1200),
        (0x1A2A3A4A, b"", b"", 1200),
        (0xFF00001D, b"d" * 20, b"", 1200),
        (0xBABABABA, b"d" * 255, b"s" * 255, 1350),
    ]:
        udp.send(initial(version, dcid, scid, size))
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(udp, 65535), 10.0)
        answers.append({"dcid": dcid.hex(), "scid": scid.hex(), "received": data.hex()})
    udp.close()
    return {"preferred": got.to_json(), "spoken": spoken, "alone": only, "answers": answers}


class Marked(PacedQuic):
    """Counts the two kinds of ACK frames."""

    def __init__(self, **how):
        super().__init__(**how)
        self.acks = {QuicFrameType.ACK: 0, QuicFrameType.ACK_ECN: 0}

    def _handle_ack_frame(self, context, frame_type, buf):
        self.acks[frame_type] += 1
        super()._handle_ack_frame(context, frame_type, buf)


async def ecn(context):
    """A handshake and a PING in datagrams marked ECT(0): how they were acknowledged, and how the server marked its own."""
    target, loop = context.target, asyncio.get_running_loop()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ECT_0)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    udp.settimeout(0.5)
    quic, address = Marked(configuration=configuration(target)), (target.host, target.port)
    quic.connect(address, now=loop.time())
    marks, end, acknowledged = {}, loop.time() + 10.0, False
    while not acknowledged and loop.time() < end:
        for data, _ in quic.datagrams_to_send(now=loop.time()):
            udp.sendto(data, address)
        try:
            data, ancillary, _, _ = udp.recvmsg(2048, 64)
        except TimeoutError:
            quic.handle_timer(now=loop.time())
            continue
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS):
                mark = str(value[0] & ECN_BITS)
                marks[mark] = marks.get(mark, 0) + 1
        quic.receive_datagram(data, address, now=loop.time())
        while event := quic.next_event():
            if isinstance(event, events.HandshakeCompleted):
                quic.send_ping(1)
            acknowledged |= isinstance(event, events.PingAcknowledged)
    udp.close()
    return {
        "acknowledged": acknowledged,
        "acks": quic.acks[QuicFrameType.ACK],
        "acks_with_ecn": quic.acks[QuicFrameType.ACK_ECN],
        "marks": marks,
    }


SCENARIOS = [versions, ecn]
