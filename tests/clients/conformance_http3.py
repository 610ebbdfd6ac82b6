"""Cases of RFC 9114 and RFC 9204 that have one right end: the 16 of h3spec, and the other mistakes on frames and critical streams."""

from aioquic.buffer import encode_uint_var as var
from aioquic.h3.connection import StreamType, encode_frame

from conformance import OPEN, Case, Client, Liar, application, judge, reset
from h3client import Http

# RFC 9114 §8.1, RFC 9204 §6.
STREAM_CREATION, CLOSED_CRITICAL_STREAM, FRAME_UNEXPECTED, FRAME_ERROR = 0x103, 0x104, 0x105, 0x106
EXCESSIVE_LOAD, ID_ERROR, SETTINGS_ERROR, MISSING_SETTINGS, MESSAGE_ERROR = 0x107, 0x108, 0x109, 0x10A, 0x10E
DECOMPRESSION_FAILED, ENCODER_STREAM_ERROR, DECODER_STREAM_ERROR = 0x200, 0x201, 0x202

DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0x0, 0x1, 0x3, 0x4, 0x5, 0x7, 0xD
# What was PRIORITY, PING, WINDOW_UPDATE and CONTINUATION in HTTP/2 (§7.2.8).
OF_HTTP2 = {"priority": 0x2, "ping": 0x6, "window_update": 0x8, "continuation": 0x9}


class WithoutControl(Http):
    """Leaves the control stream to the case."""

    def _init_connection(self):
        self._local_encoder_stream_id = self._create_uni_stream(StreamType.QPACK_ENCODER)
        self._local_decoder_stream_id = self._create_uni_stream(StreamType.QPACK_DECODER)


class Bare(Client):
    http_class = WithoutControl


def case(act, *expected, h3spec=False, client_class=Client):
    """`act` does it to a connection, and returns the stream of a request if that is what is judged."""

    async def play(target):
        client = await client_class.open(target, quic_class=Liar)
        try:
            if client_class is Client:
                await client.request("GET", "/")
            stream_id = act(client)
            client.transmit()
            return await client.outcome(client.fetched() if stream_id is None else ended(client, stream_id))
        finally:
            client.abandon()

    return Case(list(expected), play, h3spec)


async def ended(client, stream_id):
    answer = await client.answer(stream_id)
    return reset(answer.reset_code) if answer.end == "reset" else f"answer {answer.status}"


# === what is done ===


def settings(*pairs):
    return encode_frame(SETTINGS, b"".join(var(key) + var(value) for key, value in pairs))


def write(client, stream_id, data, end=False):
    client._quic.send_stream_data(stream_id, data, end_stream=end)


def uni(client, data, end=False):
    stream_id = client._quic.get_next_available_stream_id(is_unidirectional=True)
    write(client, stream_id, data, end)
    return stream_id


def opened(data, *codes, h3spec=False):
    """A unidirectional stream with this on it, beside the usual three."""
    return case(lambda c: uni(c, data) and None, *map(application, codes), h3spec=h3spec)


def control(data, *codes, h3spec=False):
    """A control stream of one's own: SETTINGS unless `data` begins otherwise, and this."""
    expected = [application(code) for code in codes] or [OPEN]
    return case(lambda c: uni(c, b"\0" + data) and None, *expected, h3spec=h3spec, client_class=Bare)


def after_settings(frame_type, payload, *codes, h3spec=False):
    return control(settings() + encode_frame(frame_type, payload), *codes, h3spec=h3spec)


def critical(which, act, *codes, h3spec=False):
    """Something done to the stream `which` of the usual three."""

    def done(client):
        act(client, getattr(client.http, f"_local_{which}_stream_id"))

    return case(done, *map(application, codes), h3spec=h3spec)


def end(client, stream_id):
    write(client, stream_id, b"", end=True)


def again(client, stream_id):
    end(client, stream_id)
    uni(client, b"\x02")


def abort(client, stream_id):
    client._quic.reset_stream(stream_id, 0x100)


def instructions(data):
    return lambda client, stream_id: write(client, stream_id, data)


def request(frames, *codes, h3spec=False, finish=False):
    """A request stream with these octets, a connection error."""

    def send(client):
        client.raw_stream(frames(client) if callable(frames) else frames, end=finish)

    return case(send, *map(application, codes), h3spec=h3spec)


def section(edit, *expected, h3spec=False):
    """A request with these fields instead of the usual ones."""
    return case(lambda c: c.start_raw(edit(c.fields("GET", "/"))), *expected, h3spec=h3spec)


def head(client):
    """HEADERS of a good request."""
    return encode_frame(HEADERS, client.http._encode_headers(0, client.fields("POST", "/hash")))


def trailers(client):
    return encode_frame(HEADERS, client.http._encode_headers(0, [(b"x-trailer", b"1")]))


def reset_without_type(client):
    stream_id = client._quic.get_next_available_stream_id(is_unidirectional=True)
    client._quic._get_or_create_stream_for_send(stream_id)
    client._quic.reset_stream(stream_id, 0x100)


def split(client):
    """The type of the control stream as a varint of two octets, in two packets."""
    stream_id = uni(client, b"\x40")
    client.transmit()
    write(client, stream_id, b"\x00" + settings())


MESSAGE = reset(MESSAGE_ERROR)
RESERVED = [(0x1F * n + 0x21, n) for n in range(10_000)]

OF_H3SPEC = {
    "rfc9114_4_1_data_before_headers": request(encode_frame(DATA, b""), FRAME_UNEXPECTED, h3spec=True),
    "rfc9114_4_3_pseudo_header_twice": section(lambda f: [*f, (b":method", b"GET")], MESSAGE, h3spec=True),
    "rfc9114_4_3_1_pseudo_header_missing": section(lambda f: [x for x in f if x[0] != b":authority"], MESSAGE, h3spec=True),
    "rfc9114_4_3_pseudo_header_unknown": section(lambda f: [*f, (b":foo", b"bar")], MESSAGE, h3spec=True),
    "rfc9114_4_3_pseudo_header_after_field": section(lambda f: [*f[:-1], (b"foo", b"bar"), f[-1]], MESSAGE, h3spec=True),
    "rfc9114_6_2_1_first_frame_is_not_settings": control(
        encode_frame(MAX_PUSH_ID, b"\x01") + settings(), MISSING_SETTINGS, h3spec=True
    ),
    "rfc9114_7_2_1_data_on_control_stream": after_settings(DATA, b"", FRAME_UNEXPECTED, h3spec=True),
    "rfc9114_7_2_2_headers_on_control_stream": after_settings(HEADERS, b"", FRAME_UNEXPECTED, h3spec=True),
    "rfc9114_7_2_4_settings_twice": after_settings(SETTINGS, b"", FRAME_UNEXPECTED, h3spec=True),
    # A receiver may (§7.2.4); h3spec had the case and asks no more.
    "rfc9114_7_2_4_setting_repeated": control(settings((7, 100), (6, 32768), (7, 100)), SETTINGS_ERROR, h3spec=True),
    "rfc9114_7_2_4_1_setting_of_http2": control(settings((7, 100), (2, 200)), SETTINGS_ERROR, h3spec=True),
    "rfc9114_7_2_3_cancel_push_on_request_stream": request(
        encode_frame(CANCEL_PUSH, b"\x00"), FRAME_UNEXPECTED, h3spec=True
    ),
    # GET, https, / and 99, of which the static table has 0 to 98.
    "rfc9204_3_1_static_index_too_large": request(
        encode_frame(HEADERS, b"\x00\x00\xd1\xd7\xc1\xff\x24"), DECOMPRESSION_FAILED, h3spec=True
    ),
    # Set Dynamic Table Capacity to 10,000,000,000.
    "rfc9204_4_3_1_capacity_above_the_limit": critical(
        "encoder", instructions(b"\x3f\xe1\xc7\xaf\xa0\x25"), ENCODER_STREAM_ERROR, h3spec=True
    ),
    "rfc9114_6_2_1_control_stream_ended": critical("control", end, CLOSED_CRITICAL_STREAM, h3spec=True),
    "rfc9204_4_4_3_insert_count_increment_of_0": critical(
        "decoder", instructions(b"\x00"), DECODER_STREAM_ERROR, h3spec=True
    ),
}

ON_REQUEST_STREAMS = {
    "rfc9114_4_1_data_after_trailers": request(
        lambda c: head(c) + trailers(c) + encode_frame(DATA, b"x"), FRAME_UNEXPECTED
    ),
    "rfc9114_4_1_headers_after_trailers": request(lambda c: head(c) + trailers(c) + trailers(c), FRAME_UNEXPECTED),
    "rfc9114_7_1_frame_cut_short_by_the_end": request(lambda c: head(c) + var(DATA) + var(9) + b"x", FRAME_ERROR, finish=True),
    "rfc9114_7_2_4_settings_on_request_stream": request(encode_frame(SETTINGS, b""), FRAME_UNEXPECTED),
    "rfc9114_7_2_5_push_promise_of_a_client": request(
        lambda c: head(c) + encode_frame(PUSH_PROMISE, b"\x00\x00\x00\xd1"), FRAME_UNEXPECTED
    ),
    "rfc9114_7_2_6_goaway_on_request_stream": request(encode_frame(GOAWAY, b"\x00"), FRAME_UNEXPECTED),
    "rfc9114_7_2_7_max_push_id_on_request_stream": request(encode_frame(MAX_PUSH_ID, b"\x00"), FRAME_UNEXPECTED),
    **{
        f"rfc9114_7_2_8_{name}_frame_of_http2_on_request_stream": request(
            lambda c, kind=kind: encode_frame(kind, bytes(8)), FRAME_UNEXPECTED
        )
        for name, kind in OF_HTTP2.items()
    },
    # Required Insert Count 1 of a dynamic table that cannot be.
    "rfc9204_2_2_reference_to_no_dynamic_entry": request(
        encode_frame(HEADERS, b"\x02\x80\x10"), DECOMPRESSION_FAILED
    ),
    "rfc9204_4_5_field_section_cut_short": request(encode_frame(HEADERS, b"\x00\x00\x27\x10abc"), DECOMPRESSION_FAILED),
}

ON_CRITICAL_STREAMS = {
    "rfc9114_5_2_goaway_id_grows": control(
        settings() + encode_frame(GOAWAY, b"\x00") + encode_frame(GOAWAY, b"\x04"), ID_ERROR
    ),
    "rfc9114_6_2_stream_ended_without_type": case(lambda c: uni(c, b"", end=True) and None, OPEN),
    "rfc9114_6_2_stream_reset_without_type": case(reset_without_type, OPEN),
    "rfc9114_6_2_type_in_two_packets": case(split, OPEN, client_class=Bare),
    "rfc9114_6_2_1_control_stream_reset": critical("control", abort, CLOSED_CRITICAL_STREAM),
    "rfc9114_6_2_1_second_control_stream": opened(b"\x00", STREAM_CREATION),
    "rfc9114_6_2_2_push_stream_of_a_client": opened(b"\x01\x00", STREAM_CREATION),
    "rfc9114_7_1_settings_cut_short": control(encode_frame(SETTINGS, b"\x06"), FRAME_ERROR),
    "rfc9114_7_1_max_push_id_empty": after_settings(MAX_PUSH_ID, b"", FRAME_ERROR),
    "rfc9114_7_1_max_push_id_too_long": after_settings(MAX_PUSH_ID, b"\x01\x00", FRAME_ERROR),
    "rfc9114_7_2_3_cancel_push_of_no_push": after_settings(CANCEL_PUSH, b"\x05", ID_ERROR),
    "rfc9114_7_2_4_1_reserved_settings": control(settings(*RESERVED[:20])),
    # More than a receiver need take in (§10.5).
    "rfc9114_10_5_10000_reserved_settings": control(settings(*RESERVED), EXCESSIVE_LOAD),
    "rfc9114_7_2_5_push_promise_on_control_stream": after_settings(PUSH_PROMISE, b"\x00\x00\x00", FRAME_UNEXPECTED),
    "rfc9114_7_2_7_max_push_id_shrinks": control(
        settings() + encode_frame(MAX_PUSH_ID, b"\x05") + encode_frame(MAX_PUSH_ID, b"\x04"), ID_ERROR
    ),
    **{
        f"rfc9114_7_2_8_{name}_frame_of_http2_on_control_stream": after_settings(kind, bytes(8), FRAME_UNEXPECTED)
        for name, kind in OF_HTTP2.items()
    },
    "rfc9204_3_2_3_insertion_without_capacity": critical(
        "encoder", instructions(b"\x41n\x01v"), ENCODER_STREAM_ERROR
    ),
    "rfc9204_4_2_second_encoder_stream": opened(b"\x02", STREAM_CREATION),
    "rfc9204_4_2_second_decoder_stream": opened(b"\x03", STREAM_CREATION),
    "rfc9204_4_2_encoder_stream_ended": critical("encoder", end, CLOSED_CRITICAL_STREAM),
    "rfc9204_4_2_encoder_stream_ended_and_opened_again": critical("encoder", again, CLOSED_CRITICAL_STREAM),
    "rfc9204_4_2_encoder_stream_reset": critical("encoder", abort, CLOSED_CRITICAL_STREAM),
    "rfc9204_4_2_decoder_stream_ended": critical("decoder", end, CLOSED_CRITICAL_STREAM),
    "rfc9204_4_2_decoder_stream_reset": critical("decoder", abort, CLOSED_CRITICAL_STREAM),
    # Section Acknowledgment of a stream whose section needed none.
    "rfc9204_4_4_1_acknowledgment_of_no_section": critical("decoder", instructions(b"\x80"), DECODER_STREAM_ERROR),
}

CASES = {**OF_H3SPEC, **ON_REQUEST_STREAMS, **ON_CRITICAL_STREAMS}


async def conformance_http3(context):
    """Each case on a connection of its own: what the RFC names, and what came."""
    return await judge(context.target, CASES)


SCENARIOS = [conformance_http3]
