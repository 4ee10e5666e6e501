#!/usr/bin/env python3
"""What a hit costs under a lease, beside one without Redis and one that asks Redis each time.

usage: benches/leases.py SIDECACHE [ROUNDS]

Needs redis-server, wrk, curl and taskset. Three sidecars in turn, each pinned to one core, with an app that answers 1 kB; requests per second of
the sidecar's own CPU time, the median of the rounds (6). Ends all that it has started.
"""

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

APP = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "1024")
        self.end_headers()
        self.wfile.write(b"x" * 1024)
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
{more}
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
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(process, port):
    url = f"http://127.0.0.1:{port}/v/1"
    for _ in range(2):
        subprocess.run(["curl", "-s", url], stdout=subprocess.DEVNULL, check=True)
    before = cpu_seconds(process)
    said = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", "-c32", "-d3", url], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"(\d+) requests in", said).group(1)) / (cpu_seconds(process) - before)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    binary, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 6
    folder, app, redis = tempfile.mkdtemp(), free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([sys.executable, "-c", APP, str(app)], **quiet),
        subprocess.Popen(["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", ""], **quiet),
    ]
    shared = f'[redis]\nurl = "redis://127.0.0.1:{redis}/0"\n'
    kinds = {"memory alone": "", "under a lease": shared, "from Redis": shared + 'namespace = "other"\n[memory]\nsize = "0"'}
    sidecars, results = {}, {kind: [] for kind in kinds}
    try:
        time.sleep(1)
        for kind, more in kinds.items():
            listen = free_port()
            path = f"{folder}/{listen}.toml"
            with open(path, "w") as file:
                file.write(CONFIG.format(listen=listen, admin=free_port(), app=app, more=more))
            process = subprocess.Popen(["taskset", "-c", "0", binary, "--config", path], **quiet)
            started.append(process)
            sidecars[kind] = (process, listen)
        time.sleep(2)
        for _ in range(rounds):
            for kind, (process, listen) in sidecars.items():
                results[kind].append(measure(process, listen))
    finally:
        for process in started:
            process.kill()
    for kind, values in results.items():
        print(f"{kind:>14}: {statistics.median(values):9.0f}   {sorted(round(value) for value in values)}")


if __name__ == "__main__":
    main()
