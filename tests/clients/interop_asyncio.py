"""The adapter of aioquic and qh3. qh3 began as a fork and keeps the interface; its QUIC and TLS are its own, in Rust.

Little that they do not offer in public is used here: h3client.py, which looks into aioquic, is for tests that need more.
"""

import asyncio
import hashlib
import socket
import time
from importlib import import_module

CHACHA20 = 0x1303


class Stack:
    """The modules of one of the two packages."""

    def __init__(self, package):
        self.asyncio = import_module(f"{package}.asyncio.protocol")
        self.configuration = import_module(f"{package}.quic.configuration")
        self.connection = import_module(f"{package}.quic.connection")
        self.events = import_module(f"{package}.quic.events")
        self.h3 = import_module(f"{package}.h3.connection")
        self.h3_events = import_module(f"{package}.h3.events")
        self.tls = import_module(f"{package}.tls")

    def protocol(self):
        """A protocol class on this package's own one."""
        stack = self

        class Protocol(self.asyncio.QuicConnectionProtocol):
            def __init__(self, quic):
                super().__init__(quic)
                self.http, self.answers, self.open = None, {}, {}
                self.ended, self.resumed = asyncio.Event(), None
                self.close_reason = None
                self.on_data = lambda: None

            def quic_event_received(self, event):
                events = stack.events
                if isinstance(event, events.ProtocolNegotiated):
                    self.http = stack.h3.H3Connection(self._quic)
                elif isinstance(event, events.HandshakeCompleted):
                    self.resumed = event.session_resumed
                elif isinstance(event, events.ConnectionTerminated):
                    self.close_reason = f"closed with {event.error_code:#x}: {event.reason_phrase}"
                    self.ended.set()
                    for stream_id in list(self.open):
                        self.settle(stream_id, self.close_reason)
                elif isinstance(event, events.StreamReset):
                    self.settle(event.stream_id, f"reset with {event.error_code:#x}")
                if self.http is not None:
                    for h3_event in self.http.handle_event(event):
                        self.h3_event(h3_event)

            def h3_event(self, event):
                stream_id = getattr(event, "stream_id", None)
                answer = self.answers.get(stream_id)
                if answer is None:
                    return
                if isinstance(event, stack.h3_events.HeadersReceived):
                    status = dict(event.headers).get(b":status")
                    answer["status"] = int(status) if status else answer["status"]
                elif isinstance(event, stack.h3_events.DataReceived):
                    answer["hash"].update(event.data)
                    answer["length"] += len(event.data)
                    self.on_data()
                if getattr(event, "stream_ended", False):
                    self.settle(stream_id, None)

            def settle(self, stream_id, error):
                waiter = self.open.pop(stream_id, None)
                if waiter is not None:
                    self.answers[stream_id]["error"] = error
                    waiter.set_result(None)

            async def get(self, authority, path):
                stream_id = self._quic.get_next_available_stream_id()
                answer = {"path": path, "status": 0, "length": 0, "hash": hashlib.sha256(), "error": "open"}
                self.answers[stream_id] = answer
                self.open[stream_id] = waiter = asyncio.get_running_loop().create_future()
                fields = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path}
                fields = [(name.encode(), value.encode()) for name, value in fields.items()]
                self.http.send_headers(stream_id, fields, end_stream=True)
                self.transmit()
                await waiter
                return answer

        return Protocol


async def exchange(package, case):
    """The connections of one case."""
    stack, tickets = Stack(package), []
    first = await connection(stack, case, tickets, None)
    if not case.get("resume"):
        return [first]
    if not tickets:
        return [first, {"answers": [], "error": "no session ticket came", "facts": {}}]
    return [first, await connection(stack, case, tickets, tickets[-1])]


async def connection(stack, case, tickets, ticket):
    configuration = stack.configuration.QuicConfiguration(is_client=True, alpn_protocols=["h3"], idle_timeout=60.0)
    configuration.server_name = case["server_name"]
    configuration.load_verify_locations(case["ca"])
    configuration.session_ticket = ticket
    if case.get("cipher") == "chacha20":
        configuration.cipher_suites = [stack.tls.CipherSuite(CHACHA20)]
    quic = stack.connection.QuicConnection(configuration=configuration, session_ticket_handler=tickets.append)
    result = {"answers": [], "error": None, "facts": {}}
    transport, protocol = await attach(stack, quic, case["host"])
    try:
        await asyncio.wait_for(talk(stack, protocol, case, result, tickets), case.get("timeout", 60.0))
    except (TimeoutError, asyncio.TimeoutError):
        result["error"] = protocol.close_reason or "not in time"
    except ConnectionError as error:
        result["error"] = protocol.close_reason or repr(error)
    result["facts"]["resumed"] = protocol.resumed
    for answer in protocol.answers.values():
        answer["sha256"] = answer.pop("hash").hexdigest()
        result["answers"].append(answer)
    protocol.close()
    transport.close()
    return result


async def attach(stack, quic, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    udp.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    udp.setblocking(False)
    protocol = stack.protocol()
    return await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol(quic), sock=udp)


async def talk(stack, protocol, case, result, tickets):
    # The form in which the socket names the sender: what comes from any other address is dropped.
    ipv6 = (case["host"], case["port"], 0, 0)
    started = time.monotonic()
    protocol.connect(ipv6 if ":" in case["host"] else ipv6[:2])
    await protocol.wait_connected()
    result["facts"]["handshake_seconds"] = time.monotonic() - started
    result["facts"]["initial_max_streams_bidi"] = streams_max(protocol._quic)
    updates = KeyUpdates(protocol, case)
    protocol.on_data = updates.look
    authority = f"{case['server_name']}:{case['port']}"
    requests = []
    for path in case["paths"]:
        # No more than MAX_STREAMS allows (RFC 9000 §4.6): qh3 refuses to, aioquic would look at all that wait each time.
        while len(requests) >= streams_max(protocol._quic) and not protocol.ended.is_set():
            await asyncio.sleep(0.001)
        requests.append(asyncio.ensure_future(protocol.get(authority, path)))
        if not case.get("concurrent"):
            await requests[-1]
    await asyncio.gather(*requests)
    result["facts"].update(seconds=time.monotonic() - started, key_updates=updates.made)
    result["facts"]["cipher"] = cipher(protocol._quic)
    while case.get("resume") and not tickets:
        await asyncio.sleep(0.01)


def streams_max(quic):
    """How many request streams the peer has allowed so far; qh3 has a property for it."""
    if hasattr(quic, "max_concurrent_bidi_streams"):
        return quic.max_concurrent_bidi_streams
    return quic._remote_max_streams_bidi


def cipher(quic):
    """The cipher suite agreed on, by name; qh3 has a method for it."""
    if hasattr(quic, "get_cipher"):
        suite = quic.get_cipher()
    else:
        suite = quic.tls.key_schedule.cipher_suite
    return getattr(suite, "name", str(suite))


class KeyUpdates:
    """Asks for new keys each time a further share of the body has come."""

    def __init__(self, protocol, case):
        self.protocol, self.wanted, self.made = protocol, case.get("key_updates", 0), 0
        self.total = max(1, case.get("total", 1))

    def look(self):
        received = sum(answer["length"] for answer in self.protocol.answers.values())
        if self.made < self.wanted and received * (self.wanted + 1) >= self.total * (self.made + 1):
            # Not within the event: the packet that brought it is still being read.
            asyncio.get_running_loop().call_soon(self.update, self.made)

    def update(self, made):
        if made != self.made:
            return
        try:
            self.protocol.request_key_update()
        except ValueError:
            # The peer has not confirmed the keys of before (RFC 9001 §6.1): once more with the next octets.
            return
        self.made += 1
