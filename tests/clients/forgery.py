"""A path on which somebody writes as well: beside each true datagram of a handshake go forged ones, in both directions."""

import asyncio
from collections import Counter

from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from flood import DCID, first_packet

VERSION_1 = 1
UNKNOWN_VERSION = 0xFACEB00C
INITIAL = 0xC0
TOKEN = b"a token of nobody's"


def is_initial(data):
    return data[0] & 0xF0 == INITIAL


def ids(data):
    """Destination and source connection ID of a long header."""
    dcid = data[DCID + 1 : DCID + 1 + data[DCID]]
    at = DCID + 1 + len(dcid)
    return dcid, data[at + 1 : at + 1 + data[at]]


def spoiled(data, rng):
    """The first packet of a datagram with one bit of its protected payload changed, in a datagram of the same size."""
    packet = bytearray(first_packet(data))
    at = len(packet) - 1 - rng.randrange(16)
    packet[at] ^= 1 << rng.randrange(8)
    return bytes(packet) + bytes(len(data) - len(packet))


class Flow:
    """One client's way through the path."""

    def __init__(self, path, client):
        self.path, self.client = path, client
        self.to_server = None
        # The ID the client has chosen for the server: a Retry is made with it (RFC 9001 §5.8).
        self.original = None
        self.forged = False

    async def open(self):
        loop = asyncio.get_running_loop()
        target = self.path.target
        self.to_server, _ = await loop.create_datagram_endpoint(
            lambda: Towards(self.answered), remote_addr=(target.host, target.port)
        )

    def asked(self, data):
        """A client's datagram: forged ones first, then the true one."""
        path, rng = self.path, self.path.random
        if is_initial(data):
            dcid, scid = ids(data)
            self.original = self.original or dcid
            for name, forged in {
                "a spoiled Initial to the server": spoiled(data, rng),
                "Version Negotiation to the server": encode_quic_version_negotiation(
                    source_cid=scid, destination_cid=dcid, supported_versions=[UNKNOWN_VERSION]
                ).ljust(1200, b"\0"),
                "a Retry to the server": encode_quic_retry(
                    version=VERSION_1, source_cid=scid, destination_cid=dcid,
                    original_destination_cid=dcid, retry_token=TOKEN,
                ).ljust(1200, b"\0"),
            }.items():
                path.tally[name] += 1
                self.to_server.sendto(forged)
        self.to_server.sendto(data)

    def answered(self, data):
        """A server's datagram: forged ones before the first, others behind it."""
        path, rng = self.path, self.path.random
        back = lambda forged: path.front.sendto(forged, self.client)
        if not is_initial(data) or self.forged or self.original is None:
            back(data)
            return
        self.forged = True
        dcid, scid = ids(data)
        # RFC 9000 §6.2: one that lists the version in use is ignored, and so is one behind any other packet.
        early = {
            "Version Negotiation with version 1": encode_quic_version_negotiation(
                source_cid=self.original, destination_cid=dcid, supported_versions=[UNKNOWN_VERSION, VERSION_1]
            ),
            "a Retry with a wrong tag": encode_quic_retry(
                version=VERSION_1, source_cid=rng.randbytes(8), destination_cid=dcid,
                original_destination_cid=rng.randbytes(8), retry_token=TOKEN,
            ),
            "a spoiled Initial": spoiled(data, rng),
        }
        # RFC 9000 §17.2.5.2: behind any other packet a Retry is ignored.
        late = {
            "late Version Negotiation": encode_quic_version_negotiation(
                source_cid=self.original, destination_cid=dcid, supported_versions=[UNKNOWN_VERSION]
            ),
            "a late Retry with a right tag": encode_quic_retry(
                version=VERSION_1, source_cid=rng.randbytes(8), destination_cid=dcid,
                original_destination_cid=self.original, retry_token=TOKEN,
            ),
        }
        for name, forged in early.items():
            path.tally[name] += 1
            back(forged)
        back(data)
        for name, forged in late.items():
            path.tally[name] += 1
            back(forged)


class Towards(asyncio.DatagramProtocol):
    """One socket of the path."""

    def __init__(self, received):
        self.received = received

    def datagram_received(self, data, _):
        self.received(data)


class Path(asyncio.DatagramProtocol):
    """The clients' side of the path."""

    def __init__(self, target, random):
        self.target, self.random = target, random
        self.tally, self.flows, self.tasks, self.front = Counter(), {}, set(), None

    def connection_made(self, transport):
        self.front = transport

    def datagram_received(self, data, client):
        flow = self.flows.get(client)
        if flow is not None:
            flow.asked(data)
            return
        task = asyncio.ensure_future(self.begin(client, data))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def begin(self, client, data):
        flow = Flow(self, client)
        await flow.open()
        flow = self.flows.setdefault(client, flow)
        flow.asked(data)


async def forging_path(context):
    """A path to the target whose address it tells as `listening`, until `stop`: how many datagrams were forged, of each kind."""
    loop = asyncio.get_running_loop()
    transport, path = await loop.create_datagram_endpoint(
        lambda: Path(context.target, context.random), local_addr=("127.0.0.1", 0)
    )
    context.event("listening", port=transport.get_extra_info("sockname")[1])
    await context.stopped.wait()
    transport.close()
    return {"forged": dict(path.tally)}


SCENARIOS = [forging_path]
