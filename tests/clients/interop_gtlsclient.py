"""The adapter of ngtcp2's example client on GnuTLS (Debian's ngtcp2-client). All its requests are concurrent; it verifies no
certificate and saves each body under the last segment of its path, query included, so that paths have to end differently.
"""

import asyncio
import hashlib
import os
import tempfile
import time

CIPHERS = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"


async def exchange(case):
    """The connections of one case."""
    with tempfile.TemporaryDirectory() as directory:
        session = ["--session-file", os.path.join(directory, "session")] if case.get("resume") else []
        connections = [await connection(case, session)]
        if case.get("resume"):
            connections.append(await connection(case, session))
        return connections


async def connection(case, options):
    timeout = case.get("timeout", 60.0)
    with tempfile.TemporaryDirectory() as directory:
        command = ["gtlsclient", "--quiet", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close"]
        command += ["--disable-early-data", "--handshake-timeout=30s", "--timeout=60s", "--download", directory]
        command += ["--sni", case["server_name"], *options]
        if case.get("cipher") == "chacha20":
            command += ["--ciphers", CIPHERS]
        if case.get("key_updates"):
            command += ["--key-update=20ms"]
        # In a URI the address stands for the name: what it says becomes :authority.
        authority = f"{case['server_name']}:{case['port']}"
        uris = [f"https://{authority}{path}" for path in case["paths"]]
        started = time.monotonic()
        client = await asyncio.create_subprocess_exec(
            *command, case["host"], str(case["port"]), *uris,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        error = None
        try:
            said, _ = await asyncio.wait_for(client.communicate(), timeout)
            if client.returncode != 0:
                error = f"exit code {client.returncode}: {said.decode(errors='replace')[-500:]}"
        except (TimeoutError, asyncio.TimeoutError):
            client.kill()
            await client.wait()
            error = "not in time"
        seconds = time.monotonic() - started
        answers = [saved(directory, path) for path in case["paths"]]
        return {"answers": answers, "error": error, "facts": {"seconds": seconds}}


def saved(directory, path):
    """The body of one answer; it tells nothing of the status."""
    answer = {"path": path, "status": None, "length": 0, "sha256": None, "error": None}
    try:
        with open(os.path.join(directory, os.path.basename(path)), "rb") as file:
            body = file.read()
    except OSError as error:
        return {**answer, "error": str(error)}
    return {**answer, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
