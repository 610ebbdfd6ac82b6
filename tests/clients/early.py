"""A client that sends its request as early data, and who has seen it sends it again (RFC 8446 §8, RFC 8470)."""

import asyncio
import dataclasses
import time

from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import MAX_EARLY_DATA, QuicConnection
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived

from flood import drain, first_packet, udp
from h3client import Failed


class Early:
    """A QUIC client without a socket, with a ticket, that has or has not written a first flight."""

    def __init__(self, target, ticket=None, on_ticket=None):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=[target.alpn], server_name=target.server_name)
        configuration.load_verify_locations(target.ca)
        configuration.max_datagram_size = 1200
        configuration.session_ticket = ticket
        self.target = target
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=on_ticket)
        self.quic.connect((target.host, target.port), now=time.monotonic())
        self.handshake = None
        self.answered = False

    def ask(self, method, path, body=b""):
        http = H3Connection(self.quic)
        names = [(":method", method), (":scheme", "https"), (":authority", self.target.server_name), (":path", path)]
        stream = self.quic.get_next_available_stream_id()
        http.send_headers(stream, [(k.encode(), v.encode()) for k, v in names], end_stream=not body)
        if body:
            http.send_data(stream, body, end_stream=True)
        return [data for data, _ in self.quic.datagrams_to_send(now=time.monotonic())]

    async def go_on(self, sock, enough, seconds=10.0):
        """Sends and receives until `enough()`."""
        end = time.monotonic() + seconds
        while not enough():
            if time.monotonic() > end:
                raise Failed("the handshake with a ticket did not end")
            now = time.monotonic()
            timer = self.quic.get_timer()
            if timer is not None and timer <= now:
                self.quic.handle_timer(now=now)
            for data, _ in self.quic.datagrams_to_send(now=now):
                sock.send(data)
            await asyncio.sleep(0.005)
            for data in drain(sock):
                self.quic.receive_datagram(data, (self.target.host, self.target.port), now=time.monotonic())
            while (event := self.quic.next_event()) is not None:
                if isinstance(event, HandshakeCompleted):
                    self.handshake = event
                elif isinstance(event, StreamDataReceived) and event.stream_id == 0:
                    self.answered |= event.end_stream


def early_packets(datagrams):
    """0-RTT packets (long header, type 1) in a flight: alone, or behind an Initial."""
    count = 0
    for data in datagrams:
        if data[0] & 0xF0 == 0xC0:
            data = data[len(first_packet(data)) :]
        count += data[:1] != b"" and data[0] & 0xF0 == 0xD0
    return count


async def early_data(context):
    """Gets a ticket, writes a first flight with a GET and one with a POST in it, and sends each `replays` times and from another
    address; then carries one of each through to its end. Says `captured`, and after `stop` (the server is another by then)
    sends the same flights again.
    """
    target, args = context.target, context.args
    tickets = []
    sock = udp(target)
    first = Early(target, on_ticket=tickets.append)
    await first.go_on(sock, lambda: tickets)
    sock.close()
    offered = tickets[0].max_early_data_size
    # A client that believes it may.
    ticket = dataclasses.replace(tickets[0], max_early_data_size=MAX_EARLY_DATA)

    def flights():
        asked = [("GET", "/bytes/7", b""), ("POST", "/hash", b"to be done once")]
        made = [Early(target, ticket) for _ in asked]
        return made, [early.ask(*what) for early, what in zip(made, asked)]

    _, captured = flights()
    sent = answered = 0

    async def replay(times):
        nonlocal sent, answered
        for address in ["127.0.0.1"] * times + ["127.0.0.5"]:
            # The handshake before is forgotten: a flight of the same connection ID begins another.
            await asyncio.sleep(args["handshake_timeout"])
            for flight in captured:
                sock = udp(target, address)
                for data in flight:
                    sock.send(data)
                sent += 1
                end = time.monotonic() + 2.0
                while time.monotonic() < end:
                    await asyncio.sleep(0.02)
                    if drain(sock):
                        answered += 1
                        break
                sock.close()

    await replay(args["replays"])
    context.event("captured", sent=sent, answered=answered)
    honest = []
    for early, flight in zip(*flights()):
        sock = udp(target)
        for data in flight:
            sock.send(data)
        await early.go_on(sock, lambda: early.answered)
        honest.append({"resumed": early.handshake.session_resumed, "accepted": early.handshake.early_data_accepted})
        early.quic.close()
        for data, _ in early.quic.datagrams_to_send(now=time.monotonic()):
            sock.send(data)
        sock.close()
    context.event("carried_through", honest=honest)
    await context.stopped.wait()
    await replay(args["replays"])
    return {
        "offered": offered,
        "early_packets": [early_packets(flight) for flight in captured],
        "sent": sent,
        "answered": answered,
        "honest": honest,
    }


SCENARIOS = [early_data]
