"""Cases of the transport parameters of a client (RFC 9000 §7.3, §7.4, §18.2): 8 of h3spec's, and each parameter in every wrong shape."""

from aioquic.buffer import encode_uint_var as var

from conformance import OPEN, Liar, application, encode_parameters, handshake, judge, transport

ERROR, PROTOCOL_VIOLATION = transport(0x8), transport(0xA)
LARGEST = (1 << 62) - 1

# Integers: ID, the least and the largest value that is valid.
INTEGERS = {
    "max_idle_timeout": (0x01, 0, LARGEST),
    "max_udp_payload_size": (0x03, 1200, LARGEST),
    "initial_max_data": (0x04, 0, LARGEST),
    "initial_max_stream_data_bidi_local": (0x05, 0, LARGEST),
    "initial_max_stream_data_bidi_remote": (0x06, 0, LARGEST),
    "initial_max_stream_data_uni": (0x07, 0, LARGEST),
    "initial_max_streams_bidi": (0x08, 0, 1 << 60),
    "initial_max_streams_uni": (0x09, 0, 1 << 60),
    "ack_delay_exponent": (0x0A, 0, 20),
    "max_ack_delay": (0x0B, 0, (1 << 14) - 1),
    "active_connection_id_limit": (0x0E, 2, LARGEST),
    "max_datagram_frame_size": (0x20, 0, LARGEST),
}
# Those that only a server may send (§18.2), with a value that would be good.
OF_SERVERS = {
    "original_destination_connection_id": (0x00, b"DUMMY678"),
    "stateless_reset_token": (0x02, bytes(16)),
    "preferred_address": (0x0D, bytes(4 + 2 + 16 + 2) + b"\x08DUMMY678" + bytes(16)),
    "retry_source_connection_id": (0x10, b"DUMMY678"),
}
DISABLE_ACTIVE_MIGRATION, INITIAL_SOURCE_CONNECTION_ID, VERSION_INFORMATION = 0x0C, 0x0F, 0x11
UNKNOWN, RESERVED = 0x1234, 31 * 1000 + 27


def without(key, pairs):
    return [pair for pair in pairs if pair[0] != key]


def case(edit, *expected, h3spec=False):
    """A handshake with these parameters instead of the usual ones."""
    return handshake(type("Lie", (Liar,), {"parameters": staticmethod(edit)}), h3spec, expected)


def with_value(key, value, *expected, h3spec=False):
    """The parameter `key` with this value, once."""
    return case(lambda pairs: [*without(key, pairs), (key, value)], *expected, h3spec=h3spec)


def usual(pairs, key, otherwise):
    return next((value for name, value in pairs if name == key), otherwise)


def twice(key, value):
    return case(lambda pairs: [*without(key, pairs), (key, value), (key, value)], ERROR)


def of_integer(name, key, least, largest):
    # RFC 9114 §6.2: HTTP/3 cannot do without a stream for the server's settings.
    none = application(0x101) if name == "initial_max_streams_uni" else OPEN
    good = var(least)
    # §18.2 leaves limits for streams and the like open upwards: the largest varint is as good as any.
    cases = {
        f"rfc9000_18_2_{name}_absent": case(lambda pairs: without(key, pairs), none),
        f"rfc9000_7_4_{name}_twice": twice(key, good),
        f"rfc9000_18_2_{name}_least": with_value(key, good, none),
        f"rfc9000_18_2_{name}_largest": with_value(key, var(largest), OPEN),
        f"rfc9000_18_2_{name}_empty": with_value(key, b"", ERROR),
        f"rfc9000_18_2_{name}_cut_short": with_value(key, b"\x80\x00", ERROR),
        f"rfc9000_18_2_{name}_too_long": case(
            lambda pairs: [*without(key, pairs), (key, usual(pairs, key, good) + b"\x00")], ERROR
        ),
    }
    if largest < LARGEST:
        cases[f"rfc9000_18_2_{name}_one_more_than_largest"] = with_value(key, var(largest + 1), ERROR)
    if least > 0:
        cases[f"rfc9000_18_2_{name}_one_less_than_least"] = with_value(key, var(least - 1), ERROR)
    return cases


CASES = {
    # h3spec's eight.
    "rfc9000_7_3_initial_source_connection_id_absent": case(
        lambda pairs: without(INITIAL_SOURCE_CONNECTION_ID, pairs), ERROR, h3spec=True
    ),
    **{
        f"rfc9000_18_2_{name}_of_a_client": with_value(key, value, ERROR, h3spec=True)
        for name, (key, value) in OF_SERVERS.items()
    },
    "rfc9000_18_2_max_udp_payload_size_of_1090": with_value(0x03, var(1090), ERROR, h3spec=True),
    "rfc9000_18_2_ack_delay_exponent_of_30": with_value(0x0A, var(30), ERROR, h3spec=True),
    "rfc9000_18_2_max_ack_delay_of_2_to_the_15th": with_value(0x0B, var(1 << 15), ERROR, h3spec=True),
    # Every integer in every shape.
    **{name: each for integer, limits in INTEGERS.items() for name, each in of_integer(integer, *limits).items()},
    # Those of servers, worse: nothing in them.
    **{
        f"rfc9000_18_2_{name}_of_a_client_empty": with_value(key, b"", ERROR) for name, (key, _) in OF_SERVERS.items()
    },
    "rfc9000_18_2_disable_active_migration": with_value(DISABLE_ACTIVE_MIGRATION, b"", OPEN),
    "rfc9000_18_2_disable_active_migration_with_a_value": with_value(DISABLE_ACTIVE_MIGRATION, b"\x01", ERROR),
    "rfc9000_7_4_disable_active_migration_twice": twice(DISABLE_ACTIVE_MIGRATION, b""),
    # §7.3: a mismatch may be either.
    "rfc9000_7_3_initial_source_connection_id_of_another": with_value(
        INITIAL_SOURCE_CONNECTION_ID, b"DUMMY678", ERROR, PROTOCOL_VIOLATION
    ),
    "rfc9000_7_3_initial_source_connection_id_empty": with_value(
        INITIAL_SOURCE_CONNECTION_ID, b"", ERROR, PROTOCOL_VIOLATION
    ),
    "rfc9000_7_3_initial_source_connection_id_of_21_octets": with_value(
        INITIAL_SOURCE_CONNECTION_ID, bytes(21), ERROR, PROTOCOL_VIOLATION
    ),
    "rfc9000_7_4_initial_source_connection_id_twice": case(
        lambda pairs: [*pairs, *[pair for pair in pairs if pair[0] == INITIAL_SOURCE_CONNECTION_ID]], ERROR
    ),
    # §7.4.2, §18.1: what is unknown is ignored, whatever is in it, but once is enough.
    "rfc9000_7_4_2_unknown_parameter": with_value(UNKNOWN, b"anything", OPEN),
    "rfc9000_18_1_reserved_parameter": with_value(RESERVED, b"anything", OPEN),
    "rfc9000_7_4_2_a_hundred_unknown_parameters": case(
        lambda pairs: [*[(UNKNOWN + n, b"") for n in range(100)], *pairs], OPEN
    ),
    "rfc9000_7_4_unknown_parameter_twice": twice(UNKNOWN, b""),
    "rfc9000_18_any_order": case(lambda pairs: pairs[::-1], OPEN),
    # §18: the sequence itself.
    "rfc9000_18_no_parameter_at_all": case(lambda pairs: [], ERROR),
    "rfc9000_18_id_cut_short": case(lambda pairs: encode_parameters(pairs) + b"\x80", ERROR),
    "rfc9000_18_no_length": case(lambda pairs: encode_parameters(pairs) + var(UNKNOWN), ERROR),
    "rfc9000_18_length_cut_short": case(lambda pairs: encode_parameters(pairs) + var(UNKNOWN) + b"\x80", ERROR),
    "rfc9000_18_value_cut_short": case(
        lambda pairs: encode_parameters(pairs) + var(UNKNOWN) + var(9) + b"8 octets", ERROR
    ),
    "rfc9000_18_length_of_2_to_the_62nd": case(
        lambda pairs: encode_parameters(pairs) + var(UNKNOWN) + var(LARGEST), ERROR
    ),
    # A ClientHello that takes two packets: the first is good.
    "rfc9000_10_2_3_wrong_parameter_in_the_second_packet": case(
        lambda pairs: [(UNKNOWN, bytes(1200)), *without(0x0A, pairs), (0x0A, var(30))], ERROR
    ),
    # RFC 9368 §4: this version has no version negotiation of that kind, so what is in it is not read.
    "rfc9368_3_version_information_empty": with_value(VERSION_INFORMATION, b"", OPEN),
}


async def conformance_parameters(context):
    """Each case on a connection of its own: what the RFC names, and what came."""
    return await judge(context.target, CASES)


SCENARIOS = [conformance_parameters]
