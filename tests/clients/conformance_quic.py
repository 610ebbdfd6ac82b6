"""Cases of RFC 9000 and RFC 9001 that have one right end: 26 of the 34 of h3spec; the other 8 are transport parameters."""

from aioquic.buffer import encode_uint_var as var
from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import ExtensionType

from conformance import Case, Client, Liar, handshake, judge, transport
from transport import inject, new_id, stream

# RFC 9000 §20.1; an alert of TLS is 0x100 and its number (RFC 9001 §4.8).
FLOW_CONTROL, STREAM_LIMIT, STREAM_STATE, FRAME_ENCODING, PROTOCOL_VIOLATION = 0x3, 0x4, 0x5, 0x7, 0xA
UNEXPECTED_MESSAGE, MISSING_EXTENSION, NO_APPLICATION_PROTOCOL = 0x10A, 0x16D, 0x178

TLS_KEY_UPDATE, TLS_END_OF_EARLY_DATA = b"\x18\x00\x00\x01\x01", b"\x05\x00\x00\x00"
# A server-initiated bidirectional stream that does not exist, and a unidirectional one, which only the server may write.
NOT_CREATED, SEND_ONLY, RECEIVE_ONLY = 101, 3, 2


def crypto(data):
    return b"\x06" + var(0) + var(len(data)) + data


def packet(payload, *codes, bits=0):
    """A case of one 1-RTT packet after a whole handshake."""

    async def act(target):
        client = await Client.open(target, quic_class=Liar)
        try:
            await client.ping()
            inject(client, payload, bits)
            return await client.outcome(client.pinged())
        finally:
            client.abandon()

    return Case([transport(code) for code in codes], act, h3spec=True)


def lie(code, **how):
    """A case that breaks its handshake."""
    attributes = {name: staticmethod(value) if callable(value) else value for name, value in how.items()}
    return handshake(type("Lie", (Liar,), attributes), True, [transport(code)])


def other_protocol():
    async def act(target):
        other = type(target)(**{**vars(target), "alpn": "dummy"})
        return await handshake(Liar).act(other)

    return Case([transport(NO_APPLICATION_PROTOCOL)], act, h3spec=True)


def crypto_in_early_data():
    """Resumes with a ticket that allows early data, whatever the server said of it, and sends CRYPTO in a 0-RTT packet."""

    class Early(Liar):
        early_packet = crypto(b"\x08\x00\x00\x02\x00\x00")

    async def act(target):
        first = await Client.open(target, quic_class=Liar)
        await first.ping()
        tickets = first._quic.tickets
        await first.finish()
        if not tickets:
            return "no ticket"
        tickets[0].max_early_data_size = MAX_EARLY_DATA
        return await handshake(Early, session_ticket=tickets[0]).act(target)

    return Case([transport(PROTOCOL_VIOLATION)], act, h3spec=True)


def old_codepoint(extensions):
    return [(0xFFA5 if kind == ExtensionType.QUIC_TRANSPORT_PARAMETERS else kind, data) for kind, data in extensions]


CASES = {
    "rfc9000_4_1_stream_data_beyond_the_limit": packet(stream(0, 100_000_000, b"GET /", True), FLOW_CONTROL),
    "rfc9000_4_6_stream_beyond_the_limit": packet(stream(1_000_000_000, 0, b"GET /", True), STREAM_LIMIT),
    "rfc9000_12_4_unknown_frame_type": packet(var(0x20) + bytes(8), FRAME_ENCODING),
    "rfc9000_12_4_no_frame": packet(b"", PROTOCOL_VIOLATION),
    "rfc9000_12_5_path_challenge_in_handshake_packet": lie(
        PROTOCOL_VIOLATION, handshake_packet=(0, b"\x1a01234567")
    ),
    "rfc9000_17_2_reserved_bits_of_handshake_packet": lie(PROTOCOL_VIOLATION, handshake_packet=(0x08, b"\x01" * 8)),
    "rfc9000_17_3_1_reserved_bits_of_short_packet": packet(b"\x01" * 8, PROTOCOL_VIOLATION, bits=0x08),
    "rfc9000_19_4_reset_stream_of_send_only_stream": packet(
        b"\x04" + var(SEND_ONLY) + var(0) + var(0), STREAM_STATE
    ),
    "rfc9000_19_5_stop_sending_of_no_stream": packet(b"\x05" + var(NOT_CREATED) + var(0), STREAM_STATE),
    "rfc9000_19_7_new_token_of_a_client": packet(b"\x07\x05DUMMY", PROTOCOL_VIOLATION),
    "rfc9000_19_8_stream_of_the_server_not_created": packet(stream(1, 0, b""), STREAM_STATE),
    "rfc9000_19_8_stream_that_only_sends": packet(stream(SEND_ONLY, 0, b""), STREAM_STATE),
    "rfc9000_19_10_max_stream_data_of_no_stream": packet(b"\x11" + var(NOT_CREATED) + var(1_000_000), STREAM_STATE),
    "rfc9000_19_10_max_stream_data_of_receive_only_stream": packet(
        b"\x11" + var(RECEIVE_ONLY) + var(1_000_000), STREAM_STATE
    ),
    "rfc9000_19_11_max_streams_too_large": packet(b"\x12" + var((1 << 60) + 1), FRAME_ENCODING),
    "rfc9000_19_14_streams_blocked_too_large": packet(b"\x16" + var((1 << 60) + 1), STREAM_LIMIT, FRAME_ENCODING),
    "rfc9000_19_15_retire_prior_to_after_sequence": packet(new_id(1, 11), FRAME_ENCODING),
    "rfc9000_19_15_empty_connection_id": packet(new_id(1, 0, 0), FRAME_ENCODING),
    "rfc9000_19_20_handshake_done_of_a_client": packet(b"\x1e", PROTOCOL_VIOLATION),
    "rfc9001_6_key_update_message_in_handshake": lie(UNEXPECTED_MESSAGE, finished=lambda data: data + TLS_KEY_UPDATE),
    "rfc9001_6_key_update_message_in_1_rtt": packet(crypto(TLS_KEY_UPDATE), UNEXPECTED_MESSAGE),
    "rfc9001_8_1_no_application_protocol_in_common": other_protocol(),
    "rfc9001_8_2_no_transport_parameters": lie(MISSING_EXTENSION, extensions=lambda extensions: []),
    "rfc9001_8_2_transport_parameters_of_a_draft": lie(MISSING_EXTENSION, extensions=old_codepoint),
    "rfc9001_8_3_end_of_early_data": lie(UNEXPECTED_MESSAGE, finished=lambda data: TLS_END_OF_EARLY_DATA + data),
    "rfc9001_8_3_crypto_in_0_rtt": crypto_in_early_data(),
}


async def conformance_quic(context):
    """Each case on a connection of its own: what the RFC names, and what came."""
    return await judge(context.target, CASES)


SCENARIOS = [conformance_quic]
