"""The adapter of libcurl with ngtcp2 and nghttp3 (curl_cffi), HTTP/3 only; concurrent requests share one connection."""

import asyncio
import hashlib
import time

from curl import handle
from curl_cffi import AsyncCurl, CurlError, CurlInfo, CurlMOpt, CurlOpt
from curl_cffi.aio import ffi, lib


async def exchange(case):
    """The connections of one case."""
    multi = AsyncCurl()
    # Not by `setopt`, which hands a pointer where libcurl takes a number.
    lib.curl_multi_setopt(multi._curlm, CurlMOpt.MAX_HOST_CONNECTIONS, ffi.cast("void *", 1))
    # Fewer at a time than are offered: in the round trip between the last of a hundred answers and the MAX_STREAMS that follows its
    # acknowledgement, libcurl holds the connection for idle and useless, and opens another in its place.
    lib.curl_multi_setopt(multi._curlm, CurlMOpt.MAX_CONCURRENT_STREAMS, ffi.cast("void *", 50))
    connections = [await connection(multi, case, fresh=False)]
    if case.get("resume"):
        connections.append(await connection(multi, case, fresh=True))
    await multi.close()
    return connections


async def connection(multi, case, fresh):
    """All answers; `fresh` leaves the connection of before alone, and goes on with its session."""

    async def one(path, fresh=False):
        answer = {"path": path, "status": 0, "length": 0, "error": None}
        digest = hashlib.sha256()

        def take(data):
            digest.update(data)
            answer["length"] += len(data)
            return len(data)

        curl = handle(case, path)
        curl.setopt(CurlOpt.PIPEWAIT, 1)
        curl.setopt(CurlOpt.FRESH_CONNECT, int(fresh))
        curl.setopt(CurlOpt.WRITEFUNCTION, take)
        try:
            await multi.add_handle(curl)
        except CurlError as error:
            answer["error"] = str(error)
        answer["status"] = curl.getinfo(CurlInfo.RESPONSE_CODE)
        answer["sha256"] = digest.hexdigest()
        curl.close()
        return answer

    paths, started = case["paths"], time.monotonic()
    if case.get("concurrent"):
        answers = await asyncio.gather(*(one(path) for path in paths))
    else:
        answers = [await one(path, fresh and index == 0) for index, path in enumerate(paths)]
    return {"answers": answers, "error": None, "facts": {"seconds": time.monotonic() - started}}
