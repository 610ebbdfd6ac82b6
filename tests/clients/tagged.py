"""Frames with a VLAN tag, by a packet socket: for a kernel without VLAN interfaces. Sends a QUIC packet of an unknown version
in one and waits for its answer. Needs CAP_NET_RAW.

usage: tagged.py INTERFACE SERVER_MAC SOURCE SERVER PORT TAG
Prints one JSON line: the answer's tag, version and length, or null.
"""

import ipaddress
import json
import os
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_AUXDATA = 263, 8
ETH_P_ALL = 3
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
AUXDATA = struct.Struct("=IIIHHHH")
TAG_IS_VALID = 1 << 4
CLIENT_PORT = 40404


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + b"\0" * (len(octets) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: str, server: str, port: int, payload: bytes) -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(server).packed
    udp = struct.pack("!HHHH", CLIENT_PORT, port, 8 + len(payload), 0)
    sum_ = checksum(addresses + struct.pack("!BBH", 0, 17, len(udp) + len(payload)) + udp + payload)
    udp = udp[:6] + struct.pack("!H", sum_ or 0xFFFF)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp + payload


def main() -> None:
    interface, mac, source, server, port, tag = sys.argv[1:]
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    link.bind((interface, 0))
    link.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    own = link.getsockname()[4]
    head = b"\xc0\xba\xba\xba\xba\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    payload = head + bytes(1200 - len(head))
    frame = bytes.fromhex(mac.replace(":", "")) + own + struct.pack("!HHH", 0x8100, int(tag), 0x0800)
    link.send(frame + packet(source, server, int(port), payload))
    deadline = time.monotonic() + 10
    answer = None
    while answer is None and (left := deadline - time.monotonic()) > 0:
        link.settimeout(left)
        try:
            octets, ancillary, _flags, address = link.recvmsg(4096, 256)
        except TimeoutError:
            break
        # What this host sends is seen here, too.
        if address[2] == socket.PACKET_OUTGOING:
            continue
        found = None
        for level, kind, value in ancillary:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, *_rest, tci, _tpid = AUXDATA.unpack(value[: AUXDATA.size])
                found = tci & 0xFFF if status & TAG_IS_VALID else None
        ethertype, at = octets[12:14], 14
        if ethertype == b"\x81\x00":
            found, ethertype, at = struct.unpack("!H", octets[14:16])[0] & 0xFFF, octets[16:18], 18
        if ethertype != b"\x08\x00" or octets[at + 9] != 17:
            continue
        if struct.unpack("!H", octets[at + 22 : at + 24])[0] != CLIENT_PORT:
            continue
        udp = octets[at + 20 :]
        answer = {
            "tag": found,
            "version": int.from_bytes(udp[9:13]),
            "length": len(udp) - 8,
            "to_us": octets[:6] == own,
            "checksum": checksum(octets[at : at + 20]),
        }
    print(json.dumps(answer))


main()
