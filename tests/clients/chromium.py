#!/usr/bin/env python3
"""Chromium, which takes HTTP/3 for the proxy's origin or nothing, driven over its debugging pipe (no port, no driver):
`chromium.py VERB`, arguments as one JSON object on the first line of standard input, as in scenario.py.

    page       `path`: a page with pictures; how many came, and over which protocol everything did
    transfer   a body down from `down`, and one of `up_length` octets up to `up`, hashed in the browser
    navigate   `path` again and again until the line `stop`; an event for each page

Arguments: host, port, server_name, certificate (the proxy's own: its key is trusted, and nothing else).
"""

import base64
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

PAGE_SECONDS = 60

# All that the page loaded: pictures that are whole, and the protocol of the page and of each thing on it.
SEEN = """(() => {
    const pictures = [...document.images];
    const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const protocols = {};
    for (const entry of entries) protocols[entry.nextHopProtocol] = (protocols[entry.nextHopProtocol] || 0) + 1;
    return {
        title: document.title,
        pictures: pictures.length,
        whole: pictures.filter(picture => picture.complete && picture.naturalWidth > 0).length,
        protocols,
    };
})()"""

TRANSFER = """(async () => {
    const hex = async data => [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))]
        .map(octet => octet.toString(16).padStart(2, "0")).join("");
    const answer = await fetch(%(down)s, {cache: "no-store"});
    const down = await answer.arrayBuffer();
    const up = new Uint8Array(%(up_length)d);
    for (let place = 0; place < up.length; place += 65536) crypto.getRandomValues(up.subarray(place, place + 65536));
    const taken = await fetch(%(up)s, {method: "PUT", body: up});
    return {
        status: answer.status, length: down.byteLength, sha256: await hex(down),
        up_status: taken.status, taken: await taken.json(), up_sha256: await hex(up),
    };
})()"""


class Browser:
    """A Chromium of its own profile. Commands are answered in turn; events that come between are kept."""

    def __init__(self, args):
        origin = f"{args['server_name']}:{args['port']}"
        self.profile = tempfile.mkdtemp(prefix="spooky-chromium-")
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        command = [
            shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-sync", "--no-first-run", "--remote-debugging-pipe",
            f"--user-data-dir={self.profile}", "--enable-quic", f"--origin-to-force-quic-on={origin}",
            f"--host-resolver-rules=MAP {args['server_name']} {args['host']}",
            f"--ignore-certificate-errors-spki-list={key_hash(args['certificate'])}", "about:blank",
        ]  # fmt: skip

        def pipes():
            # Through numbers that neither pipe has.
            high = [os.dup2(to_browser, 103), os.dup2(from_browser, 104)]
            for number, target in zip(high, (3, 4)):
                os.dup2(number, target)

        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, close_fds=False, preexec_fn=pipes, start_new_session=True, **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PAGE_SECONDS
        while True:
            answer = self.message(end)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer.get("method"))

    def message(self, end):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.answers, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError("the browser is gone" if ready else "the browser says nothing")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, url):
        self.events.clear()
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            raise RuntimeError(f"{url}: {error}")
        end = time.monotonic() + PAGE_SECONDS
        while "Page.loadEventFired" not in self.events:
            self.events.append(self.message(end).get("method"))

    def evaluate(self, script):
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"]["value"]

    def close(self):
        # Its own process group, so that none of its helpers is left.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # Its helpers may still be writing when it is gone.
        end = time.monotonic() + 5
        while os.path.exists(self.profile) and time.monotonic() < end:
            shutil.rmtree(self.profile, ignore_errors=True)


def key_hash(certificate):
    """What the flag wants: SHA-256 of SubjectPublicKeyInfo, in base64."""
    with open(certificate, "rb") as file:
        key = load_pem_x509_certificate(file.read()).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def page(browser, args, base):
    browser.open(base + args["path"])
    return browser.evaluate(SEEN)


def transfer(browser, args, base):
    browser.open(base + "/")
    values = {"down": json.dumps(args["down"]), "up": json.dumps(args["up"]), "up_length": args["up_length"]}
    return {**browser.evaluate(TRANSFER % values), "seen": browser.evaluate(SEEN)}


def navigate(browser, args, base):
    pages = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        browser.open(base + args["path"])
        pages.append(browser.evaluate(SEEN))
        emit({"event": "page", "number": len(pages), **pages[-1]})
    return {"pages": pages}


def emit(value):
    print(json.dumps(value), flush=True)


def main():
    verb, args, browser = sys.argv[1], json.loads(sys.stdin.readline()), None
    try:
        browser = Browser(args)
        base = f"https://{args['server_name']}:{args['port']}"
        outcome = {"result": {"page": page, "transfer": transfer, "navigate": navigate}[verb](browser, args, base)}
    except Exception:
        outcome = {"error": traceback.format_exc()}
    if browser is not None:
        browser.close()
    # Last: whoever reads it ends this process.
    emit(outcome)


if __name__ == "__main__":
    main()
