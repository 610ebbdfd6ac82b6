"""Scenarios of messages in every spelling: lengths, bytes of fields, paths, authorities, fields that speak of the client."""

import asyncio

from h3client import Connection


def brief(answer):
    return {"status": answer.status, "end": answer.end, "reset_code": answer.reset_code}


async def lengths(context):
    """Sends bodies of five octets with each of `values` for `content-length`, in several shapes."""
    connection = await Connection.open(context.target)
    results = []
    for name, values, body, shape in context.args["cases"]:
        fields = connection.fields("POST", f"/hash?case={name}")
        fields += [(b"content-length", value.encode("latin-1")) for value in values]
        stream_id = connection.start_raw(fields, end=shape == "head")
        if shape == "own_packet":
            await connection.send(stream_id, body.encode())
            await asyncio.sleep(0.05)
            connection._quic.send_stream_data(stream_id, b"", end_stream=True)
            connection.transmit()
        elif shape == "trailers":
            await connection.send(stream_id, body.encode())
            connection.send_trailers(stream_id, [("content-length", "3"), ("x-trailer", "1")])
        elif shape == "body":
            await connection.send(stream_id, body.encode(), end=True)
        answer = await connection.answer(stream_id, 5.0)
        results.append({"name": name, **brief(answer)})
    after = await connection.request("GET", "/")
    await connection.finish()
    return {"cases": results, "after": after.to_json()}


async def every_byte(context):
    """Each byte in each place of a request: those that were accepted, by place."""
    connection = await Connection.open(context.target)

    def with_pseudo(name, value):
        return [(key, value if key == name else old) for key, old in connection.fields("GET", "/")]

    base = connection.fields("GET", "/")
    places = {
        "name": lambda byte: [*base, (b"a" + byte + b"b", b"v")],
        "value": lambda byte: [*base, (b"n", b"a" + byte + b"b")],
        "value_edge": lambda byte: [*base, (b"n", byte + b"b")],
        "path": lambda byte: with_pseudo(b":path", b"/" + byte + b"b"),
        "authority": lambda byte: with_pseudo(b":authority", b"a" + byte + b"b"),
        "method": lambda byte: with_pseudo(b":method", b"A" + byte),
        "scheme": lambda byte: with_pseudo(b":scheme", b"https" + byte),
    }
    accepted = {}
    for place, fields in places.items():
        ids = []
        for byte in range(256):
            ids.append(connection.start_raw(fields(bytes([byte]))))
            if byte % 32 == 31:
                for stream_id in ids[-32:]:
                    await connection.answer(stream_id, 10.0)
        answers = [connection.answers[stream_id] for stream_id in ids]
        accepted[place] = [n for n, a in enumerate(answers) if a.end == "clean" and a.status != 400]
        if any(answer.end in ("open", "lost") for answer in answers):
            return {"closed_with": connection.closed_with, "place": place}
    after = await connection.request("GET", "/")
    await connection.finish()
    return {"accepted": accepted, "after": after.to_json()}


async def paths(context):
    """GETs each of `paths` as it is written: status, and which origin answered."""
    connection = await Connection.open(context.target)
    results = []
    for path in context.args["paths"]:
        fields = [
            (key, path.encode("latin-1") if key == b":path" else value) for key, value in connection.fields("GET", "/")
        ]
        answer = await connection.answer(connection.start_raw(fields), 5.0)
        results.append({"path": path, "origin": answer.header("x-origin"), **brief(answer)})
    await connection.finish()
    return results


async def authorities(context):
    """GETs `/` with each of `cases`, pairs of `:authority` and `host` where null is none: the status."""
    connection = await Connection.open(context.target)
    results = []
    for authority, host in context.args["cases"]:
        fields = [field for field in connection.fields("GET", "/echo") if field[0] != b":authority"]
        if authority is not None:
            fields.insert(2, (b":authority", authority.encode("latin-1")))
        fields += [(b"host", each.encode("latin-1")) for each in (host or [])]
        stream_id = connection.start_raw(fields, keep=True)
        answer = await connection.answer(stream_id, 5.0)
        results.append({"body": (answer.body or b"").decode(), **brief(answer)})
    await connection.finish()
    return results


async def fields_and_trailers(context):
    """POSTs to `/echo` with each of `fields` in the head and `trailers` behind the body: what the backend saw."""
    connection = await Connection.open(context.target)
    args = context.args
    answer = await connection.request(
        args.get("method", "POST"),
        "/echo",
        headers=[tuple(field) for field in args["fields"]],
        body=args.get("body", "").encode(),
        trailers=[tuple(field) for field in args.get("trailers", [])] or None,
        timeout=5.0,
    )
    await connection.finish()
    return answer.to_json()


SCENARIOS = [lengths, every_byte, paths, authorities, fields_and_trailers]
