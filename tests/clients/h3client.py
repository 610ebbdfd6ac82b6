"""An HTTP/3 client on aioquic that lets a test see and do what a browser hides.

It shares no code with the proxy (aioquic is its own QUIC and HTTP/3), reports resets, interim responses, trailers and
GOAWAY as they came, and can move to another UDP socket, read slowly by holding windows back, or write raw frames.
Everything runs on one asyncio loop; one `Connection` is one QUIC connection.
"""

import asyncio
import hashlib
import socket
import ssl
import time
from dataclasses import dataclass, field

from aioquic.buffer import Buffer
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import FrameType, H3Connection, StreamType, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import SignatureAlgorithm

H3_NO_ERROR = 0x100
H3_REQUEST_CANCELLED = 0x10C
SEND_BUFFER = 1024 * 1024


class Failed(Exception):
    """A connection that did not come about, or ended under a request."""


@dataclass
class Target:
    """Where and how to connect. `host` is an address; `server_name` goes into SNI and `:authority`."""

    host: str
    port: int
    server_name: str = "localhost"
    ca: str | None = None
    insecure: bool = False
    bind: str | None = None
    idle_timeout: float = 60.0
    authority: str | None = None
    alpn: str = "h3"
    signature_algorithms: str | None = None

    @classmethod
    def of(cls, args):
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in args.items() if name in known})


@dataclass
class Answer:
    """One response, or how it failed. `end` is `clean`, `reset`, `lost` (connection gone) or `open`."""

    stream_id: int
    status: int = 0
    headers: list = field(default_factory=list)
    informational: list = field(default_factory=list)
    trailers: list | None = None
    length: int = 0
    end: str = "open"
    reset_code: int | None = None
    stop_sending_code: int | None = None
    close_code: int | None = None
    body: bytearray | None = None
    seconds: float = 0.0

    def __post_init__(self):
        self.hash = hashlib.sha256()

    def header(self, name):
        return next((value for key, value in self.headers if key == name), None)

    def to_json(self):
        text = None if self.body is None else bytes(self.body).decode("utf-8", "replace")
        return {
            "status": self.status,
            "headers": self.headers,
            "informational": self.informational,
            "trailers": self.trailers,
            "length": self.length,
            "sha256": self.hash.hexdigest(),
            "end": self.end,
            "reset_code": self.reset_code,
            "stop_sending_code": self.stop_sending_code,
            "close_code": self.close_code,
            "body": text,
            "seconds": self.seconds,
        }


class Http(H3Connection):
    """HTTP/3 that reports what a strict client would close the connection for."""

    def __init__(self, quic):
        self.goaways = 0
        # What has come on the peer's control stream, its type included.
        self.control = b""
        self.on_goaway = lambda goaways: None
        super().__init__(quic)

    def _check_control_frame_type(self, frame_type):
        # aioquic skips what is in a GOAWAY: that there was one is seen here, its request ID in `goaway_ids`.
        super()._check_control_frame_type(frame_type)
        if frame_type == FrameType.GOAWAY:
            self.goaways += 1
            self.on_goaway(self.goaways)

    def _receive_stream_data_uni(self, stream, data, stream_ended):
        events = super()._receive_stream_data_uni(stream, data, stream_ended)
        if stream.stream_type == StreamType.CONTROL:
            self.control += data
        return events

    def goaway_ids(self):
        """The request ID of each GOAWAY, in the order of their coming."""
        buffer, ids = Buffer(data=self.control), []
        buffer.pull_uint_var()
        while not buffer.eof():
            frame_type, payload = buffer.pull_uint_var(), buffer.pull_bytes(buffer.pull_uint_var())
            if frame_type == FrameType.GOAWAY:
                ids.append(Buffer(data=payload).pull_uint_var())
        return ids

    def _check_content_length(self, stream):
        # A wrong length is for the test to judge; HEAD has a length and no body.
        return


class PacedQuic(QuicConnection):
    """Gives flow-control credit at a fixed rate, so that the peer sees a slow reader and not a slow network.

    Counts PATH_CHALLENGE frames (RFC 9000 §8.2): they prove that the peer noticed a new path.
    """

    rate = None
    window = 0
    started = None
    path_challenges = 0
    signature_algorithms = None

    def _initialize(self, peer_cid):
        super()._initialize(peer_cid)
        if self.signature_algorithms is not None:
            # The names of the enumeration start with the key type: ECDSA_..., RSA_...
            kind = self.signature_algorithms.upper()
            offered = self.tls._signature_algorithms
            self.tls._signature_algorithms = [s for s in offered if SignatureAlgorithm(s).name.startswith(kind)]

    def pace(self, rate, window):
        self.rate, self.window, self.started = rate, window, time.monotonic()

    def _handle_path_challenge_frame(self, context, frame_type, buf):
        self.path_challenges += 1
        super()._handle_path_challenge_frame(context, frame_type, buf)

    def _allowed(self):
        return self.window + int(self.rate * (time.monotonic() - self.started))

    def _write_connection_limits(self, builder, space):
        if self.rate is None:
            super()._write_connection_limits(builder, space)
            return
        # The base class doubles the limit when half of it is used: here, time alone raises it.
        limit = self._local_max_data
        used, limit.used = limit.used, 0
        limit.value = max(limit.value, self._allowed())
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _write_stream_limits(self, builder, space, stream):
        if self.rate is None or not stream.max_stream_data_local:
            super()._write_stream_limits(builder, space, stream)
            return
        highest, stream.receiver.highest_offset = stream.receiver.highest_offset, 0
        stream.max_stream_data_local = max(stream.max_stream_data_local, self._allowed())
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            stream.receiver.highest_offset = highest


def configuration(target, **configured):
    """aioquic's, for this target."""
    settings = QuicConfiguration(
        is_client=True, alpn_protocols=[target.alpn], idle_timeout=target.idle_timeout, **configured
    )
    settings.server_name = target.server_name
    settings.max_datagram_size = 1200
    if target.ca:
        settings.load_verify_locations(target.ca)
    if target.insecure:
        settings.verify_mode = ssl.CERT_NONE
    return settings


class Connection(QuicConnectionProtocol):
    """One QUIC connection with HTTP/3 on it."""

    http_class = Http

    def __init__(self, target, quic, sockets):
        super().__init__(quic)
        self.target = target
        self.http = None
        self.answers = {}
        self.waiters = {}
        self.progress = {}
        self.closed_with = None
        self.handshakes = 0
        self.sockets = sockets
        self.goaway_seen = asyncio.Event()
        self.second_goaway_seen = asyncio.Event()
        self.stateless_reset = asyncio.Event()
        self.rebindings = 0

    # === life ===

    @classmethod
    async def begin(cls, target, quic_class=PacedQuic, rate=None, window=256 * 1024, **configured):
        """Sends the first flight and waits for nothing. `configured` goes into aioquic's configuration."""
        settings = configuration(target, **configured)
        if rate is not None:
            settings.max_data = settings.max_stream_data = window
        quic = quic_class(configuration=settings)
        quic.signature_algorithms = target.signature_algorithms
        connection = cls(target, quic, [])
        if rate is not None:
            quic.pace(rate, window)
        await connection._attach()
        # The form in which the socket names the sender: aioquic drops what comes from any other address.
        ipv6 = (target.host, target.port, 0, 0)
        connection.connect(ipv6 if ":" in target.host else ipv6[:2])
        return connection

    @classmethod
    async def open(cls, target, timeout=10.0, **how):
        """The same, and waits until the handshake is done."""
        connection = await cls.begin(target, **how)
        try:
            await asyncio.wait_for(connection.wait_connected(), timeout)
        except (TimeoutError, asyncio.TimeoutError, ConnectionError) as cause:
            closed = connection.closed_with
            connection.abandon()
            raise Failed(f"no handshake with {target.host}:{target.port}: {closed or cause!r}") from cause
        return connection

    async def _attach(self):
        """Binds a fresh UDP socket and sends and receives through it from now on."""
        family = socket.AF_INET6 if ":" in self.target.host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        udp.bind((self.target.bind or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
        udp.setblocking(False)
        transport, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=udp)
        self.sockets.append(transport)

    async def rebind(self, lossless=True, change_id=False):
        """Goes on from a new local port with the same connection IDs, as behind a NAT that lost its mapping; with `change_id`
        it uses another ID of the peer's there, as a client does that moves of its own accord (RFC 9000 §9.5).

        What is on its way to the old port still arrives, unless not `lossless`. The PING is for a receiver that has
        acknowledged everything: it would not send again, and the peer would not learn of the new port.
        """
        old = self.sockets[-1]
        await self._attach()
        if change_id:
            self._quic.change_connection_id()
        while len(self.sockets) > (2 if lossless else 1):
            self.sockets.pop(0).close()
        if not lossless:
            old.close()
        self._quic.send_ping(self.rebindings)
        self.rebindings += 1
        self.transmit()

    def abandon(self):
        """Forgets the connection without a word to the peer."""
        if self._timer is not None:
            self._timer.cancel()
        for transport in self.sockets:
            transport.close()

    async def finish(self):
        """Closes the connection with H3_NO_ERROR."""
        self.close(error_code=H3_NO_ERROR)
        for transport in self.sockets:
            transport.close()
        if self._timer is not None:
            self._timer.cancel()

    # === requests ===

    def fields(self, method, path, headers=()):
        authority = self.target.authority or self.target.server_name
        lines = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
        return [(k.encode(), v.encode()) for k, v in [*lines, *headers]]

    def start(self, method, path, headers=(), end=True, keep=False):
        """Sends the field section of a request; returns its stream ID."""
        return self.start_raw(self.fields(method, path, headers), end, keep)

    def start_raw(self, fields, end=True, keep=False):
        stream_id = self._quic.get_next_available_stream_id()
        self.watch(stream_id, keep)
        self.http.send_headers(stream_id, fields, end_stream=end)
        self.transmit()
        return stream_id

    def watch(self, stream_id, keep=False):
        answer = Answer(stream_id, body=bytearray() if keep else None, seconds=time.monotonic())
        self.answers[stream_id] = answer
        self.waiters[stream_id] = self._loop.create_future()
        if self.closed_with is not None:
            self._settle(stream_id, "lost")
        return answer

    def may_send(self, stream_id):
        """Whether the request is still on: STOP_SENDING (RFC 9000 §3.5) can come well before the rest of the answer."""
        stopped = self.answers[stream_id].stop_sending_code is not None
        return not stopped and not self.waiters[stream_id].done()

    async def send(self, stream_id, data, end=False):
        """Sends body bytes, holding no more than 1 MiB unacknowledged in this process. False: nobody wants more of them."""
        if self.answers[stream_id].stop_sending_code is not None:
            return False
        self.http.send_data(stream_id, data, end_stream=end)
        self.transmit()
        stream = self._quic._streams.get(stream_id)
        while stream and len(stream.sender._buffer) > SEND_BUFFER and self.may_send(stream_id):
            await asyncio.sleep(0.002)
        return self.may_send(stream_id)

    def send_trailers(self, stream_id, trailers):
        self.http.send_headers(stream_id, [(k.encode(), v.encode()) for k, v in trailers], end_stream=True)
        self.transmit()

    def cancel(self, stream_id, code=H3_REQUEST_CANCELLED):
        """Gives a request up in both directions (RFC 9114 §4.1.1)."""
        if stream_id in self._quic._streams:
            self._quic.stop_stream(stream_id, code)
            sender = self._quic._streams[stream_id].sender
            if not sender.is_finished:
                self._quic.reset_stream(stream_id, code)
            self.transmit()

    async def answer(self, stream_id, timeout=60.0):
        try:
            await asyncio.wait_for(asyncio.shield(self.waiters[stream_id]), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            pass
        return self.answers[stream_id]

    async def request(self, method, path, headers=(), body=b"", trailers=None, keep=True, timeout=60.0):
        stream_id = self.start(method, path, headers, end=not body and not trailers, keep=keep)
        if body:
            await self.send(stream_id, body, end=not trailers)
        if trailers:
            self.send_trailers(stream_id, trailers)
        return await self.answer(stream_id, timeout)

    def raw_stream(self, data, end=False):
        """Opens a request stream with arbitrary bytes on it."""
        stream_id = self._quic.get_next_available_stream_id()
        self.watch(stream_id)
        self._quic.send_stream_data(stream_id, data, end_stream=end)
        self.transmit()
        return stream_id

    def raw_frame(self, frame_type, payload):
        return encode_frame(frame_type, payload)

    # === events ===

    def issued(self):
        """The server's connection IDs that can be used."""
        return [self._quic._peer_cid, *self._quic._peer_cid_available]

    def datagram_received(self, data, addr):
        # aioquic keeps the tokens and never looks for them (RFC 9000 §10.3.1).
        if len(data) >= 21 and data[-16:] in [cid.stateless_reset_token for cid in self.issued()]:
            self.stateless_reset.set()
        super().datagram_received(data, addr)

    def quic_event_received(self, event):
        if isinstance(event, quic_events.ProtocolNegotiated):
            # Before any stream of the peer: its SETTINGS may come in the same datagram as the end of the handshake.
            self.http = self.http_class(self._quic)
            self.http.on_goaway = self._goaway
        elif isinstance(event, quic_events.HandshakeCompleted):
            self.handshakes += 1
        elif isinstance(event, quic_events.StreamReset):
            answer = self.answers.get(event.stream_id)
            if answer is not None:
                answer.reset_code = event.error_code
                self._settle(event.stream_id, "reset")
        elif isinstance(event, quic_events.StopSendingReceived):
            answer = self.answers.get(event.stream_id)
            if answer is not None:
                answer.stop_sending_code = event.error_code
        elif isinstance(event, quic_events.ConnectionTerminated):
            self.closed_with = event.error_code
            for stream_id in list(self.waiters):
                self._settle(stream_id, "lost")
        if self.http is not None:
            for http_event in self.http.handle_event(event):
                self._http_event(http_event)

    def _goaway(self, goaways):
        self.goaway_seen.set()
        if goaways > 1:
            self.second_goaway_seen.set()

    def _http_event(self, event):
        answer = self.answers.get(event.stream_id)
        if answer is None:
            return
        if isinstance(event, HeadersReceived):
            self._field_section(answer, [[k.decode(), v.decode("latin-1")] for k, v in event.headers])
        elif isinstance(event, DataReceived):
            answer.hash.update(event.data)
            answer.length += len(event.data)
            if answer.body is not None:
                answer.body += event.data
            waiting = self.progress.get(event.stream_id)
            if waiting and answer.length >= waiting[0]:
                del self.progress[event.stream_id]
                waiting[1].set()
        if event.stream_ended:
            self._settle(event.stream_id, "clean")

    def _field_section(self, answer, lines):
        status = next((value for key, value in lines if key == ":status"), None)
        regular = [line for line in lines if not line[0].startswith(":")]
        if status is None:
            answer.trailers = regular
        elif status.startswith("1"):
            answer.informational.append({"status": int(status), "headers": regular})
        else:
            answer.status, answer.headers = int(status), regular

    async def received(self, stream_id, length, timeout=30.0):
        """Waits until `length` bytes of the body are there, or the stream has ended. True when they are."""
        answer, event = self.answers[stream_id], asyncio.Event()
        if answer.length < length and not self.waiters[stream_id].done():
            self.progress[stream_id] = (length, event)
            try:
                await asyncio.wait_for(event.wait(), timeout)
            except (TimeoutError, asyncio.TimeoutError):
                self.progress.pop(stream_id, None)
        return answer.length >= length

    def _settle(self, stream_id, how):
        answer, waiter = self.answers[stream_id], self.waiters[stream_id]
        if waiter.done():
            return
        answer.end, answer.seconds = how, time.monotonic() - answer.seconds
        answer.close_code = self.closed_with
        waiter.set_result(None)
        waiting = self.progress.pop(stream_id, None)
        if waiting:
            waiting[1].set()

    def forget(self, stream_id):
        """Drops a settled answer, so that long runs hold nothing of it."""
        self.answers.pop(stream_id, None)
        self.waiters.pop(stream_id, None)

