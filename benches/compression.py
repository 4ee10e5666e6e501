#!/usr/bin/env python3
"""What `compress` of [redis] saves and costs: bytes in Redis, bytes from it per hit, the sidecar's own
CPU time per hit from Redis, and how long a client waits for one.

usage: benches/compression.py SIDECACHE [--rounds N] [FILE ...]

Needs redis-server, redis-cli, curl and taskset. The bodies are FILEs, .json or .html; without any, three of
this repository. For each, sidecars without compression and at some levels, in turn, pinned to one core,
with the memory tier off; medians of the rounds (6). Ends all that it has started.
"""

import argparse
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
FILES = ["tests/sessions/vectors.json", "src/admin/dashboard/index.html", "src/admin/openapi.json"]
SETTINGS = {"off": '"off"', "zstd": '"zstd"', "level 9": "{ level = 9 }"}
HITS = 1000
TYPES = {".json": "application/json", ".html": "text/html"}

APP = """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = pathlib.Path(sys.argv[2]).read_bytes()
        self.send_response(200)
        self.send_header("content-type", sys.argv[3])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

CONFIG = """
[listen]
address = "127.0.0.1:{listen}"
[admin]
address = "127.0.0.1:{admin}"
[upstream]
url = "http://127.0.0.1:{app}"
[memory]
size = "0"
[redis]
url = "redis://127.0.0.1:{redis}/0"
namespace = "n{listen}"
compress = {compress}
[log]
access = false
[[routes]]
path  = "/v/{{id}}"
ttl   = "1h"
scope = "public"
tags  = ["v:{{id}}"]
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_seconds(process):
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def ask(port, *words):
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def sent_by(redis):
    return int(re.search(r"total_net_output_bytes:(\d+)", ask(redis, "INFO", "stats")).group(1))


def hit(client, length):
    """Asks once, and returns how long it took until the last byte had come."""
    host = ":".join(map(str, client.getpeername()))
    begun = time.perf_counter()
    client.sendall(f"GET /v/1 HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    reply = client.recv(1 << 16)
    while (end := reply.find(b"\r\n\r\n")) < 0:
        reply += client.recv(1 << 16)
    assert b"detail=redis" in reply[:end], reply[:end]
    left = length - (len(reply) - end - 4)
    while left > 0:
        left -= len(client.recv(1 << 20))
    return time.perf_counter() - begun


def measure(process, port, redis, length):
    """CPU time of the sidecar per hit, bytes from Redis per hit, and the median wait, in us."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hit(client, length)
        cpu, sent = cpu_seconds(process), sent_by(redis)
        waits = [hit(client, length) for _ in range(HITS)]
        cpu, sent = cpu_seconds(process) - cpu, sent_by(redis) - sent
    return cpu / HITS * 1e6, sent / HITS, statistics.median(waits) * 1e6


def fill(port):
    """Asks until it is a hit from Redis."""
    for _ in range(100):
        command = ["curl", "-s", "-D", "-", "-o", "/dev/null", f"http://127.0.0.1:{port}/v/1"]
        if "detail=redis" in subprocess.run(command, capture_output=True, text=True).stdout:
            return
        time.sleep(0.1)
    sys.exit("nothing is stored in Redis")


def body(binary, file, rounds):
    folder, app, redis = tempfile.mkdtemp(), free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    source = [sys.executable, "-c", APP, str(app), str(file), TYPES[file.suffix]]
    server = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
    started = [subprocess.Popen(source, **quiet), subprocess.Popen(server, **quiet)]
    sidecars, results = {}, {name: [] for name in SETTINGS}
    print(f"{file.name}, {file.stat().st_size} bytes")
    try:
        time.sleep(1)
        for name, compress in SETTINGS.items():
            listen = free_port()
            path = pathlib.Path(folder, f"{listen}.toml")
            path.write_text(CONFIG.format(listen=listen, admin=free_port(), app=app, redis=redis, compress=compress))
            process = subprocess.Popen(["taskset", "-c", "0", binary, "--config", str(path)], **quiet)
            started.append(process)
            sidecars[name] = (process, listen)
        time.sleep(2)
        for _, listen in sidecars.values():
            fill(listen)
        for _ in range(rounds):
            for name, (process, listen) in sidecars.items():
                results[name].append(measure(process, listen, redis, file.stat().st_size))
        for name, (_, listen) in sidecars.items():
            key = next(key for key in ask(redis, "KEYS", f"*n{listen}*:e:*").split() if key)
            cpu, wire, latency = (statistics.median(column) for column in zip(*results[name]))
            print(f"{name:>9}: {ask(redis, 'MEMORY', 'USAGE', key):>8} B in Redis {wire:9.0f} B from it per hit"
                  f" {cpu:7.1f} us of CPU per hit {latency:7.0f} us until it has come")
    finally:
        for process in started:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    for file in args.files or [TOP / file for file in FILES]:
        body(args.binary, file, args.rounds)


if __name__ == "__main__":
    main()
