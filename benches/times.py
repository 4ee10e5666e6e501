#!/usr/bin/env python3
"""How long what is not a hit takes: a start, a reload, and a write where there are several sidecars;
and what hits wait beside such things.

usage: benches/times.py [start] [reload] [writes] [beside] SIDECACHE

start   from exec to the first hit: a request that is stored, and one that is served of it
reload  of a file with 1,000 routes, and what hits beside it wait, next to what they wait without it
writes  what a write takes through one of 1, 4, 16 and 48 sidecars of one Redis, where the app answers
        at once; and what an idle one takes of a core. Needs redis-server
beside  the 99th percentile of what hits wait while nothing else happens, and while entries expire,
        1,000 routes are reloaded, tags are purged, and bodies of 10 MB are stored: rounds in turns

Without a name, all of them. Times are medians, in milliseconds. Everything runs on free ports of this
machine, and ends with this script. Run it on a quiet machine: the sidecars share its cores with it.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

STARTS, RELOADS, WRITES, SIDECARS = 21, 11, 200, (1, 4, 16, 48)
# For how long idle sidecars are watched, in seconds.
IDLE = 10
ROUTE = '[[routes]]\npath = "/{name}/{{id}}"\nttl = "1h"\nscope = "public"\ntags = ["{name}:{{id}}"]\n'
PURGE = '[[purges]]\npath = "/things/{id}"\ntags = ["things:{id}"]\n'
# What happens beside hits: rounds of each, and how many seconds one takes.
ROUNDS, ROUND = 7, 3
# Requests that store what expires, tags in a purge and purges in a second, bytes of a large body and how many
# of those come in a second, and reloads in a second.
SHORT, TAGS, PURGES, LARGE, FILLS, TURNS = 400, 100, 16, 10_000_000, 5, 2
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def free_port():
    """A port that nobody has, and that no connection from this machine gets."""
    while True:
        port = random.randrange(12000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def answer(connection):
    rest = b""
    with connection, contextlib.suppress(OSError):
        while more := connection.recv(65536):
            rest += more
            while b"\r\n\r\n" in rest:
                rest = rest.split(b"\r\n\r\n", 1)[1]
                connection.sendall(REPLY)


def accept(listener, how):
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=how, args=(connection,), daemon=True).start()


def serve_app():
    """An app whose answers take no time."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
    return listener.getsockname()[1]


@contextlib.contextmanager
def running(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Sidecar:
    """The file of a sidecar, and what asks it."""

    def __init__(self, folder, app, more):
        self.listen, self.admin = free_port(), free_port()
        self.file = pathlib.Path(folder, f"{self.listen}.toml")
        self.file.write_text(
            f'[listen]\naddress = "127.0.0.1:{self.listen}"\n[upstream]\nurl = "http://127.0.0.1:{app}"\n'
            f'[admin]\naddress = "127.0.0.1:{self.admin}"\n[log]\nlevel = "error"\naccess = false\n{more}'
        )

    def client(self, patience=30):
        """A connection, as soon as there is somebody to connect to."""
        deadline = time.monotonic() + patience
        while True:
            client = http.client.HTTPConnection("127.0.0.1", self.listen, timeout=30)
            try:
                client.connect()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.0005)
            else:
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return client

    def ask_admin(self, method, path, body=None):
        client = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        head = {"Content-Type": "application/json"} if body is not None else {}
        client.request(method, path, body=None if body is None else json.dumps(body), headers=head)
        reply = client.getresponse()
        text = reply.read()
        client.close()
        return reply.status, text


def ask(client, method, path):
    """The `X-Cache` of a response, and how many milliseconds it took."""
    began = time.perf_counter()
    client.request(method, path, body=b"" if method == "POST" else None)
    reply = client.getresponse()
    reply.read()
    assert reply.status == 200, reply.status
    return reply.headers["x-cache"], 1000 * (time.perf_counter() - began)


def show(name, values):
    ordered = sorted(values)
    print(f"{name}: {statistics.median(ordered):.2f} ms (from {ordered[0]:.2f} to {ordered[-1]:.2f}, {len(ordered)} times)",
          flush=True)


def start(binary, folder, app):
    times = []
    for _ in range(STARTS):
        sidecar = Sidecar(folder, app, ROUTE.format(name="things"))
        began = time.perf_counter()
        with running([binary, "--config", str(sidecar.file)]):
            client = sidecar.client()
            assert ask(client, "GET", "/things/1")[0] == "MISS"
            assert ask(client, "GET", "/things/1")[0] == "HIT"
            times.append(1000 * (time.perf_counter() - began))
            client.close()
    show("from exec to the first hit", times)


def hits_until(client, is_over):
    times = []
    while not is_over():
        cache, took = ask(client, "GET", "/things/1")
        assert cache == "HIT", cache
        times.append(took)
    return times


def reload(binary, folder, app):
    rules = ROUTE.format(name="things") + "".join(ROUTE.format(name=f"path-{number}") for number in range(999))
    sidecar = Sidecar(folder, app, rules)
    with running([binary, "--config", str(sidecar.file)]):
        client = sidecar.client()
        ask(client, "GET", "/things/1")
        until = time.monotonic() + 3
        quiet = hits_until(client, lambda: time.monotonic() > until)
        text, took, beside = sidecar.file.read_text(), [], []
        for number in range(RELOADS):
            # Another ttl of all routes but that of the hits, which is stored for its own.
            first, others = text.split("path-0", 1)
            sidecar.file.write_text(first + "path-0" + others.replace('"1h"', f'"{number + 61}m"'))
            done = threading.Event()

            def reloading():
                began = time.perf_counter()
                status, said = sidecar.ask_admin("POST", "/reload", {})
                took.append(1000 * (time.perf_counter() - began))
                assert status == 200, said
                done.set()

            thread = threading.Thread(target=reloading)
            thread.start()
            beside.append(max(hits_until(client, done.is_set), default=0.0))
            thread.join()
            assert took, "the reload failed"
    show("reload of 1,000 routes", took)
    show("a hit, without a reload", quiet)
    show("the slowest hit beside each reload", beside)


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def writes(binary, folder, app):
    for count in SIDECARS:
        redis = free_port()
        with contextlib.ExitStack() as stack:
            stack.enter_context(running(["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "",
                                         "--dir", folder]))
            rules = f'[redis]\nurl = "redis://127.0.0.1:{redis}/0"\n' + ROUTE.format(name="things") + PURGE
            sidecars = [Sidecar(folder, app, rules) for _ in range(count)]
            processes = [stack.enter_context(running([binary, "--config", str(one.file)])) for one in sidecars]
            for one in sidecars:
                one.client(60).close()
            # Until all of them have heard of each other.
            time.sleep(5)
            client = sidecars[0].client()
            for _ in range(20):
                ask(client, "POST", "/things/1")
            show(f"a write, {count} sidecars", [ask(client, "POST", f"/things/{number % 7}")[1] for number in range(WRITES)])
            before = [cpu_seconds(process) for process in processes]
            time.sleep(IDLE)
            used = [cpu_seconds(process) - at for process, at in zip(processes, before)]
            print(f"an idle sidecar of {count}: {100 * statistics.mean(used) / IDLE:.2f} % of a core", flush=True)


def answer_large(connection):
    """An app whose answers are large under `/large/`, and short elsewhere."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % LARGE
    large, rest = bytes(LARGE), b""
    with connection, contextlib.suppress(OSError):
        while more := connection.recv(65536):
            rest += more
            while b"\r\n\r\n" in rest:
                request, rest = rest.split(b"\r\n\r\n", 1)
                connection.sendall(head + large if request.startswith(b"GET /large/") else REPLY)


def at_rate(rate, act):
    """Acts so many times in a second, until the process is ended."""
    began = time.monotonic()
    for number in range(1 << 60):
        act(number)
        time.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))


def expire(sidecar):
    client = sidecar.client()
    at_rate(SHORT, lambda number: ask(client, "GET", f"/short/{number}"))


def turn(sidecar):
    text = sidecar.file.read_text()
    first, others = text.split("path-0", 1)

    def act(number):
        # Whole at any moment: this process may be ended in the middle.
        written = sidecar.file.with_suffix(".new")
        written.write_text(first + "path-0" + others.replace('"1h"', f'"{number % 1000 + 61}m"'))
        written.replace(sidecar.file)
        status, said = sidecar.ask_admin("POST", "/reload", {})
        assert status == 200, said

    at_rate(TURNS, act)


def purge(sidecar):
    def act(number):
        tags = [f"things:{number * TAGS + each + 2}" for each in range(TAGS)]
        status, said = sidecar.ask_admin("POST", "/purge", {"tags": tags})
        assert status == 200, said

    at_rate(PURGES, act)


def fill(sidecar):
    client = sidecar.client()
    at_rate(FILLS, lambda number: ask(client, "GET", f"/large/{number}"))


def percentile(values, share):
    return sorted(values)[int(len(values) * share)]


def waits(client):
    """The 99th percentile of what hits wait in a round."""
    until = time.monotonic() + ROUND
    return percentile(hits_until(client, lambda: time.monotonic() > until), 0.99)


def beside(binary, folder, _):
    # A process of its own: what it does must not delay whoever measures here.
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    multiprocessing.Process(target=accept, args=(listener, answer_large), daemon=True).start()
    app = listener.getsockname()[1]
    rules = (ROUTE.format(name="things") + ROUTE.format(name="large") + ROUTE.format(name="short").replace('"1h"', '"1s"')
             + "".join(ROUTE.format(name=f"path-{number}") for number in range(997)))
    for happens in (expire, turn, purge, fill):
        sidecar = Sidecar(folder, app, rules)
        with running([binary, "--config", str(sidecar.file)]):
            client = sidecar.client()
            ask(client, "GET", "/things/1")
            quiet, other = [], []
            for _ in range(ROUNDS):
                quiet.append(waits(client))
                process = multiprocessing.Process(target=happens, args=(sidecar,))
                process.start()
                time.sleep(0.5)
                other.append(waits(client))
                assert process.is_alive(), f"{happens.__name__} has failed"
                process.terminate()
                process.join()
            show(f"99 of 100 hits beside {happens.__name__}, at most", other)
            show("and without it", quiet)


def main():
    kinds = {"start": start, "reload": reload, "writes": writes, "beside": beside}
    *names, binary = sys.argv[1:] or [""]
    if not binary or any(name not in kinds for name in names):
        sys.exit(__doc__)
    app = serve_app()
    with tempfile.TemporaryDirectory() as folder:
        for name in names or kinds:
            kinds[name](binary, folder, app)


if __name__ == "__main__":
    main()
