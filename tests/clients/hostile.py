"""Scenarios of a peer that breaks the rules: malformed messages, noise."""

import asyncio
import socket

from h3client import Connection

AUTHORITY = b":authority"


def good(connection, path, method="GET"):
    return connection.fields(method, path)


def malformed_cases(connection, path):
    """Name, field section, body, whether the stream is ended: RFC 9114 §4.1.2, §4.2, §4.3 each forbids one."""
    base = good(connection, path)
    post = good(connection, path, "POST")

    def without(name):
        return [field for field in base if field[0] != name]

    def length(value):
        return [*post, (b"content-length", value)]

    return {
        "duplicate_pseudo_header": ([base[0], *base], None),
        "missing_method": (without(b":method"), None),
        "missing_path": (without(b":path"), None),
        "missing_scheme": (without(b":scheme"), None),
        "unknown_pseudo_header": ([*base, (b":status", b"200")], None),
        "late_pseudo_header": ([*without(b":path"), (b"x-first", b"1"), (b":path", path.encode())], None),
        "uppercase_name": ([*base, (b"X-Upper", b"1")], None),
        "cr_lf_in_value": ([*base, (b"x-split", b"a\r\nx-injected: 1")], None),
        "nul_in_value": ([*base, (b"x-nul", b"a\0b")], None),
        "connection_field": ([*base, (b"connection", b"close")], None),
        "transfer_encoding_field": ([*base, (b"transfer-encoding", b"chunked")], None),
        "te_not_trailers": ([*base, (b"te", b"gzip")], None),
        "te_trailers_and_more": ([*base, (b"te", b"trailers, deflate")], None),
        "connection_names_a_field": ([*base, (b"connection", b"x-auth"), (b"x-auth", b"1")], None),
        "keep_alive_field": ([*base, (b"keep-alive", b"timeout=5")], None),
        "proxy_connection_field": ([*base, (b"proxy-connection", b"keep-alive")], None),
        "upgrade_field": ([*base, (b"upgrade", b"h2c")], None),
        "host_differs": ([*base, (b"host", b"other.example")], None),
        "two_content_lengths": ([*length(b"5"), (b"content-length", b"6")], b"12345"),
        "body_shorter": (length(b"10"), b"12345"),
        "body_longer": (length(b"3"), b"12345"),
        "length_then_bare_fin": (length(b"40"), b""),
        "content_length_signed": (length(b"+5"), b"12345"),
        "empty_path": ([*without(b":path"), (b":path", b"")], None),
        "empty_authority": ([*without(AUTHORITY), (AUTHORITY, b"")], None),
        "space_in_name": ([*base, (b"x bad", b"1")], None),
    }


async def malformed(context):
    """Sends every malformed message on one connection, then a good request: 400 or a stream error, nothing more."""
    connection = await Connection.open(context.target)
    results = {}
    for name in malformed_cases(connection, "/"):
        if connection.closed_with is not None:
            results[name] = {"skipped": True, "close_code": connection.closed_with}
            connection = await Connection.open(context.target)
            continue
        # The head of a message with a wrong length is good: it goes to where the backend waits for the body's end.
        path = "/hash" if malformed_cases(connection, "/")[name][1] is not None else f"/malformed/{name}"
        fields, body = malformed_cases(connection, path)[name]
        stream_id = connection.start_raw(fields, end=body is None)
        if body:
            await connection.send(stream_id, body, end=True)
        elif body is not None:
            connection._quic.send_stream_data(stream_id, b"", end_stream=True)
            connection.transmit()
        results[name] = (await connection.answer(stream_id, 5.0)).to_json()
    after = await connection.request("GET", "/")
    await connection.finish()
    return {"cases": results, "after": after.to_json()}


async def noise(context):
    """Sends `count` seeded datagrams of noise, some dressed as QUIC, from one socket; counts what comes back."""
    family = socket.AF_INET6 if ":" in context.target.host else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setblocking(False)
    sent = received = sent_bytes = received_bytes = 0
    for _ in range(context.args["count"]):
        data = bytearray(context.random.randbytes(context.random.choice([0, 1, 5, 20, 21, 60, 1200, 1400])))
        shape = context.random.randrange(4)
        if shape == 1 and data:
            data[0] = 0x40 | (data[0] & 0x3F)
        elif shape == 2 and len(data) > 7:
            data[0] = 0xC0 | (data[0] & 0x3F)
            data[1:6] = bytes([0, 0, 0, 1, context.random.choice([0, 8, 20, 21, 255])])
        elif shape == 3 and len(data) > 7:
            data[0] |= 0x80
            data[1:5] = b"\xfa\xfa\xfa\xfa"
        try:
            udp.sendto(bytes(data), (context.target.host, context.target.port))
            sent, sent_bytes = sent + 1, sent_bytes + len(data)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        while True:
            try:
                back = udp.recv(65536)
                received, received_bytes = received + 1, received_bytes + len(back)
            except (BlockingIOError, ConnectionRefusedError):
                break
    udp.close()
    connection = await Connection.open(context.target)
    after = await connection.request("GET", "/")
    await connection.finish()
    return {
        "sent": sent,
        "received": received,
        "sent_bytes": sent_bytes,
        "received_bytes": received_bytes,
        "after": after.to_json(),
    }


SCENARIOS = [malformed, noise]
