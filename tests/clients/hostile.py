"""Scenarios of a peer that breaks the rules: malformed messages, wrong frames, noise."""

import asyncio
import socket

from aioquic.buffer import encode_uint_var

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


def connection_errors(connection):
    """Name, what is done to the connection, the codes the RFC allows for it."""
    quic = connection._quic

    def request_frame(frame_type, payload):
        return lambda: connection.raw_stream(connection.raw_frame(frame_type, payload))

    def uni(stream_type, data=b"", end=False):
        def send():
            stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
            quic.send_stream_data(stream_id, encode_uint_var(stream_type) + data, end_stream=end)
            connection.transmit()

        return send

    def control(frame_type, payload):
        def send():
            stream_id = connection.http._local_control_stream_id
            quic.send_stream_data(stream_id, connection.raw_frame(frame_type, payload))
            connection.transmit()

        return send

    def reset_control():
        quic.reset_stream(connection.http._local_control_stream_id, 0x100)
        connection.transmit()

    return {
        # RFC 9114 §7.2.1, §4.1: DATA before HEADERS
        "data_before_headers": (request_frame(0x0, b"x"), {0x105}),
        # §7.2.4: SETTINGS on a request stream, and twice
        "settings_on_request_stream": (request_frame(0x4, b""), {0x105}),
        "second_settings": (control(0x4, b""), {0x105}),
        # §7.2.8: frame types of HTTP/2
        "http2_ping_frame": (control(0x6, bytes(8)), {0x105}),
        # §6.2.1: one control stream, and it stays
        "second_control_stream": (uni(0x0), {0x103}),
        "control_stream_reset": (reset_control, {0x104}),
        # RFC 9204 §4.2: one encoder stream
        "second_encoder_stream": (uni(0x2), {0x103}),
        # RFC 9204 §2.2: a reference to a dynamic table that does not exist
        "qpack_bad_reference": (request_frame(0x1, bytes([0x02, 0x80, 0x10])), {0x200}),
        # §6.2.2: only servers push
        "push_stream": (uni(0x1, b"\x00"), {0x103}),
        # §7.2.7, §7.1: a frame with less in it than its fields need
        "max_push_id_empty": (control(0xD, b""), {0x106}),
    }


async def errors(context):
    """Breaks one connection a case; returns the code each was closed with, and what the RFC names."""
    results = {}
    probe = await Connection.open(context.target)
    for name, (_, allowed) in connection_errors(probe).items():
        connection = await Connection.open(context.target)
        await connection.request("GET", "/")
        connection_errors(connection)[name][0]()
        try:
            await asyncio.wait_for(connection.wait_closed(), 5.0)
        except (TimeoutError, asyncio.TimeoutError):
            pass
        results[name] = {"closed_with": connection.closed_with, "allowed": sorted(allowed)}
        connection.abandon()
    bystander = await probe.request("GET", "/")
    await probe.finish()
    return {"cases": results, "bystander": bystander.to_json()}


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


SCENARIOS = [malformed, errors, noise]
