#!/usr/bin/env python3
"""CPU time a request: spooky beside Envoy and Caddy, in one interleaved run, as a Markdown table.

Root: each target gets a network namespace with a loopback of its own, so that nothing else on the machine is in the way
and an XDP program on `lo` is in nobody else's. Proxy and backend share core 0, the generator has core 1. Nothing leaves
the loopback devices. docs/performance.md says how to install what this needs.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PORT, BACKEND, ADMIN = 9443, 8080, 9901

MIB = 1 << 20
# Name, unit of the cost, its size in µs, and what the generator is told. `-n` is scaled by --scale.
SCENARIOS = {
    "get": ("GET 1 KiB, 10x10", "µs", 1, 20000, "-c 10 -m 10 --path /1k --expect 1024"),
    "down": ("download 1 MiB, 10x1", "ms", 1000, 400, "-c 10 -m 1 --warm 20 --path /1m --expect 1048576"),
    "up": ("upload 1 MiB, 10x1", "ms", 1000, 300, f"-c 10 -m 1 --warm 20 --path /1k --body {MIB} --expect 1024"),
    "fresh": ("new connection + GET 1 KiB, 8 at a time", "µs", 1, 1500, "-c 8 --fresh --path /1k --expect 1024"),
}
TARGETS = ["spooky-off", "spooky-reuseport", "spooky-xdp", "envoy", "caddy"]


class Target:
    """A proxy and its backend in a namespace."""

    def __init__(self, name, directory, options):
        self.name, self.options = name, options
        self.directory = directory / name
        self.directory.mkdir()
        self.namespace = f"spooky-load-{os.getpid()}-{name}"
        self.processes = []
        self.proxy = None

    def begin(self):
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self.inside(["ip", "link", "set", "lo", "up"])
        backend = ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(self.options.files)]
        self.start("backend", [*backend, "-m", "1024", "-w", "20", "-W", "24", str(BACKEND)])
        self.proxy = self.start("proxy", self.command())
        self.wait()

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)

    def command(self):
        kind, _, mode = self.name.partition("-")
        template = {"spooky": "spooky.yaml", "envoy": "envoy.yaml", "caddy": "Caddyfile"}[kind]
        values = {"PORT": PORT, "BACKEND": BACKEND, "ADMIN": ADMIN, "MODE": mode, "CERTS": self.options.certs}
        text = (HERE / "peers" / template).read_text()
        file = self.directory / template
        file.write_text(re.sub("@([A-Z]+)@", lambda found: str(values[found[1]]), text))
        venv = pathlib.Path(self.options.venv)
        if kind == "envoy":
            binary = next(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
            return [str(binary), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
        if kind == "caddy":
            return ["env", "GOMAXPROCS=1", str(venv / "bin/caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
        return [str(self.options.spooky), "run", "--config", str(file)]

    def start(self, role, command):
        log = (self.directory / f"{role}.log").open("w")
        # `ip netns exec` and `taskset` replace themselves: the process is the program.
        command = ["ip", "netns", "exec", self.namespace, "taskset", "-c", "0", *command]
        environment = {**os.environ, "HOME": str(self.directory)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def inside(self, command):
        subprocess.run(["ip", "netns", "exec", self.namespace, *command], check=True)

    def load(self, arguments):
        """One run of the generator: its JSON line, whether or not requests failed."""
        generator = [str(self.options.load), *arguments, "--pid", str(self.proxy.pid), "--name", self.name]
        command = ["ip", "netns", "exec", self.namespace, "taskset", "-c", "1", *generator, f"127.0.0.1:{PORT}"]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if not run.stdout:
            raise RuntimeError(f"{self.name}: {run.stderr.strip()}")
        return json.loads(run.stdout)

    def wait(self):
        """Until a request succeeds."""
        deadline = time.monotonic() + 20
        while True:
            try:
                if self.load(["-c", "1", "-m", "1", "-n", "1", "--warm", "0", "--path", "/1k"])["failures"] == 0:
                    return
            except RuntimeError as error:
                last = error
            else:
                last = "the request failed"
            if self.proxy.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "proxy.log").read_text()
                raise RuntimeError(f"{self.name} does not answer: {last}\n{log[-2000:]}")
            time.sleep(0.1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spooky", type=pathlib.Path, default=ROOT / "target/release/spooky")
    parser.add_argument("--load", type=pathlib.Path, default=ROOT / "target/release/spooky-load")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "target/peers", help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--raw", type=pathlib.Path, help="every run's JSON line goes here as well")
    return parser.parse_args()


def prepare(options, directory):
    options.files = directory / "www"
    options.files.mkdir()
    (options.files / "1k").write_bytes(bytes(1024))
    (options.files / "1m").write_bytes(os.urandom(MIB))
    options.certs = directory
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *key, *files, *subject], check=True, capture_output=True)


def measure(targets, options):
    results = {}
    raw = options.raw.open("w") if options.raw else None
    scenarios = options.scenarios.split(",")
    for number, scenario, target in itertools.product(range(1, options.rounds + 1), scenarios, targets):
        count = max(1, int(SCENARIOS[scenario][3] * options.scale))
        line = target.load([*SCENARIOS[scenario][4].split(), "-n", str(count)])
        line.update(scenario=scenario, round=number)
        results.setdefault((scenario, target.name), []).append(line)
        print(f"{number} {scenario:6} {target.name:17} {line['proxy_cpu_us']:9.1f} µs "
              f"{line['requests_per_second']:8.0f}/s own {line['own_cpu_us']:8.1f} µs "
              f"failures {line['failures']} drops {line['receive_buffer_drops']}", file=sys.stderr, flush=True)
        if raw:
            raw.write(json.dumps(line) + "\n")
            raw.flush()
    return results


def table(results, options):
    names = options.targets.split(",")
    peers = [name for name in names if not name.startswith("spooky")]
    for scenario in options.scenarios.split(","):
        title, unit, size, _, _ = SCENARIOS[scenario]
        ratios = "".join(f" | of {peer}" for peer in peers)
        print(f"\n### {title}\n")
        print(f"| proxy | CPU {unit}/request: median (min-max) | user + system{ratios} | requests/s | p50 / p99 ms "
              "| peak RSS MiB | failures |")
        print("|---" * (7 + len(peers)) + "|")
        for name in names:
            lines = results[scenario, name]
            median = lambda field: statistics.median(line[field] for line in lines)
            cost = [line["proxy_cpu_us"] / size for line in lines]
            # A ratio is taken within each round, then the median of the rounds.
            of = [statistics.median(mine["proxy_cpu_us"] / max(its["proxy_cpu_us"], 0.01)
                                    for mine, its in zip(lines, results[scenario, peer])) for peer in peers]
            digits = 2 if size > 1 else 1
            print(f"| {name} | {statistics.median(cost):.{digits}f} ({min(cost):.{digits}f}-{max(cost):.{digits}f}) "
                  f"| {median('proxy_user_us') / size:.{digits}f} + {median('proxy_system_us') / size:.{digits}f} "
                  + "".join(f"| {ratio:.2f} " for ratio in of)
                  + f"| {median('requests_per_second'):.0f} "
                  f"| {statistics.median(line['latency_us'][0] or 0 for line in lines) / 1000:.2f} / "
                  f"{statistics.median(line['latency_us'][1] or 0 for line in lines) / 1000:.2f} "
                  f"| {max(line['peak_resident_kib'] for line in lines) / 1024:.0f} "
                  f"| {sum(line['failures'] for line in lines)} |")


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="spooky-load-") as directory:
        directory = pathlib.Path(directory)
        prepare(options, directory)
        targets = []
        try:
            for name in options.targets.split(","):
                # One after the other: a target that does not start ends the run before anything is measured.
                targets.append(Target(name, directory, options))
                targets[-1].begin()
            results = measure(targets, options)
        finally:
            for target in targets:
                target.end()
    table(results, options)


if __name__ == "__main__":
    main()
