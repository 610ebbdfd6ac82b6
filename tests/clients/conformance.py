"""What the cases of conformance_*.py share: a client that can lie in its handshake, and how a peer took what it was sent.

An outcome is a text: `transport 0x8` and `application 0x105`, a CONNECTION_CLOSE of that kind and code; `stream 0x10e`, a
RESET_STREAM; `answer 200`, a response; `open`, a connection that goes on; `silence`, nothing at all.
"""

import asyncio
from dataclasses import dataclass
from typing import Awaitable, Callable

from aioquic.buffer import Buffer
from aioquic.buffer import encode_uint_var as var
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.tls import Epoch, ExtensionType

from h3client import Connection, Failed, PacedQuic

OPEN, SILENCE = "open", "silence"
# A peer that says nothing for so long says nothing.
PATIENCE = 20.0
# Connections at a time: a server may ask for Retry when more handshakes are half done.
AT_ONCE = 12


def transport(code):
    return f"transport {code:#x}"


def application(code):
    return f"application {code:#x}"


def reset(code):
    return f"stream {code:#x}"


@dataclass
class Case:
    """What the RFC names for it, what is done, and whether it is one of the fifty of h3spec."""

    expected: list[str]
    act: Callable[..., Awaitable[str]]
    h3spec: bool = False


class Liar(PacedQuic):
    """Sends its handshake as the subclass or the case wants it, and keeps what the peer closed with."""

    # What becomes of the (id, value) pairs of the transport parameters, and of the extensions of ClientHello with them.
    parameters = staticmethod(lambda pairs: pairs)
    extensions = staticmethod(lambda extensions: extensions)
    # What becomes of the client's CRYPTO data in Handshake packets: its Finished.
    finished = staticmethod(lambda data: data)
    # First octet to be mixed in and payload of a Handshake packet that goes before all others; payload of a 0-RTT packet.
    handshake_packet = None
    early_packet = None

    def __init__(self, **how):
        super().__init__(**how)
        self.closed_by_peer = asyncio.Event()
        self.outcome = None
        self.tickets = []
        self.send_raw = lambda data: None

    def _serialize_transport_parameters(self):
        usual, pairs = Buffer(data=super()._serialize_transport_parameters()), []
        while not usual.eof():
            key = usual.pull_uint_var()
            pairs.append((key, usual.pull_bytes(usual.pull_uint_var())))
        changed = self.parameters(pairs)
        return changed if isinstance(changed, bytes) else encode_parameters(changed)

    def _initialize(self, peer_cid):
        super()._initialize(peer_cid)
        self.tls.handshake_extensions = self.extensions(self.tls.handshake_extensions)
        self.tls.new_session_ticket_cb = self.tickets.append

    def _push_crypto_data(self):
        buffer = self._crypto_buffers[Epoch.HANDSHAKE]
        data = bytes(buffer.data)
        if data:
            buffer.seek(0)
            buffer.push_bytes(self.finished(data))
        super()._push_crypto_data()

    def _write_handshake(self, builder, epoch, now):
        if epoch == Epoch.HANDSHAKE and self.handshake_packet and self._cryptos[epoch].send.is_valid():
            (bits, payload), self.handshake_packet = self.handshake_packet, None
            self.send_raw(self.long_packet(QuicPacketType.HANDSHAKE, epoch, builder._packet_number, payload, bits))
            builder._packet_number += 1
        super()._write_handshake(builder, epoch, now)
        if epoch == Epoch.INITIAL and self.early_packet and self._cryptos[Epoch.ZERO_RTT].send.is_valid():
            payload, self.early_packet = self.early_packet, None
            # Behind the Initial, which is sent when this returns, and far from the numbers in use.
            data = self.long_packet(QuicPacketType.ZERO_RTT, Epoch.ZERO_RTT, 5000, payload)
            asyncio.get_running_loop().call_soon(self.send_raw, data)

    def long_packet(self, kind, epoch, number, payload, bits=0):
        """A packet with a long header, `bits` mixed into its first octet."""
        tag = 16
        first = 0xC3 | {QuicPacketType.ZERO_RTT: 1, QuicPacketType.HANDSHAKE: 2}[kind] << 4 | bits
        ids = b"".join(bytes([len(each)]) + each for each in (self._peer_cid.cid, self.host_cid))
        length = (4 + len(payload) + tag) | 0x4000
        header = bytes([first]) + self._version.to_bytes(4, "big") + ids + length.to_bytes(2, "big")
        return self._cryptos[epoch].encrypt_packet(header + number.to_bytes(4, "big"), payload, number)

    def _handle_connection_close_frame(self, context, frame_type, buf):
        start = buf.tell()
        kind = transport if frame_type == QuicFrameType.TRANSPORT_CLOSE else application
        self.outcome = self.outcome or kind(buf.pull_uint_var())
        self.closed_by_peer.set()
        buf.seek(start)
        super()._handle_connection_close_frame(context, frame_type, buf)


class Client(Connection):
    """A connection of a `Liar`."""

    async def _attach(self):
        await super()._attach()
        address = (self.target.host, self.target.port)
        self._quic.send_raw = lambda data: self.sockets[-1].sendto(data, address)

    async def outcome(self, good):
        """What came first: a CONNECTION_CLOSE, or the outcome for which `good` waits; `silence` when neither does."""
        quic = self._quic
        # What `good` does may be what the case has made impossible: then only a close can come.
        closed, good = asyncio.ensure_future(quic.closed_by_peer.wait()), asyncio.ensure_future(good)
        await asyncio.wait([closed, good], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if good.done() and good.exception() is not None:
            await asyncio.wait([closed], timeout=PATIENCE)
        closed.cancel()
        good.cancel()
        if quic.closed_by_peer.is_set():
            return quic.outcome
        return good.result() if good.done() and good.exception() is None else SILENCE

    async def pinged(self):
        """Whether a PING is acknowledged: what was sent before it has been judged by then."""
        await self.ping()
        return OPEN

    async def fetched(self):
        """The same of a request, which is judged after all streams before it."""
        answer = await self.request("GET", "/", timeout=PATIENCE)
        return OPEN if answer.status == 200 else SILENCE


def encode_parameters(pairs):
    return b"".join(var(key) + var(len(value)) + value for key, value in pairs)


def parameters_extension(extensions):
    return [data for kind, data in extensions if kind == ExtensionType.QUIC_TRANSPORT_PARAMETERS]


def handshake(quic_class, h3spec=False, expected=(), **configured):
    """A case that lies in its handshake."""

    async def act(target):
        client = await Client.begin(target, quic_class=quic_class, **configured)
        try:

            async def whole():
                await client.wait_connected()
                return await client.pinged()

            return await client.outcome(whole())
        finally:
            client.abandon()

    return Case(list(expected), act, h3spec)


async def bystand(target, stopped):
    """Asks every 50 ms until told to stop: how many answers were complete, and what was wrong with the first that was not."""
    connection = await Connection.open(target)
    good, bad = 0, None
    while not stopped.is_set():
        answer = await connection.request("GET", "/", timeout=10.0)
        if (answer.status, answer.end) == (200, "clean"):
            good += 1
        else:
            bad = bad or answer.to_json()
        await asyncio.sleep(0.05)
    await connection.finish()
    return {"good": good, "bad": bad}


async def judge(target, cases):
    """Plays all cases, beside somebody who wants nothing but answers."""
    turns, stopped = asyncio.Semaphore(AT_ONCE), asyncio.Event()
    bystander = asyncio.ensure_future(bystand(target, stopped))

    async def play(case):
        async with turns:
            try:
                return await case.act(target)
            except Failed as failure:
                return str(failure)

    outcomes = await asyncio.gather(*[play(case) for case in cases.values()])
    stopped.set()
    played = zip(cases.items(), outcomes)
    return {
        "cases": {
            name: {"expected": case.expected, "got": got, "h3spec": case.h3spec} for (name, case), got in played
        },
        "bystander": await bystander,
    }
