"""Sidecars of two versions over one namespace of a Redis, and the clients that ask them."""

import dataclasses
import http.client
import json
import pathlib
import socket
import subprocess
import threading
import time

from harness.processes import Failed, environment, free_port

PATIENCE_SECONDS = 20
TIMEOUT_SECONDS = 30

# In upper case, as nothing but the keys of the rules says how a tag is spelled.
TENANT = "ACME"

RULES = """
[upstream]
url = "http://127.0.0.1:{app}"

[redis]
url = "redis://127.0.0.1:{redis}/0"
namespace = "versions"
{more}
[fields]
tenant = {{ header = "x-tenant" }}

[[routes]]
path = "/items/{{id}}"
ttl = "1h"
scope = "public"
key = ["tenant"]
tags = ["Items:{{tenant}}", "item:{{tenant}}:{{id}}"]

[[purges]]
path = "/edits/{{id}}"
tags = ["item:{{tenant}}:{{id}}"]
"""


@dataclasses.dataclass
class Version:
    """One of the two programs, and the versions of what it shares with others."""

    name: str
    program: pathlib.Path
    protocol: int
    formats: list


class Read:
    def __init__(self, response, text):
        self.status, self.text = response.status, text
        self.cache = response.getheader("x-cache") or "none"
        self.why = response.getheader("cache-status") or ""

    def __str__(self):
        return f"{self.status} {self.cache} {self.text!r} ({self.why})"


class Client:
    """A connection that is kept."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def send(self, method, path, tenant=TENANT, body=None):
        self.connection.request(method, path, body=body, headers={"x-tenant": tenant})
        response = self.connection.getresponse()
        return Read(response, response.read().decode())

    def read(self, item, tenant=TENANT):
        return self.send("GET", f"/items/{item}", tenant)

    def write(self, item, tenant=TENANT):
        """Returns the number that the app has given to this write."""
        answer = self.send("PUT", f"/edits/{item}", tenant, body=b"")
        if answer.status != 200:
            raise Failed(f"a write: {answer}")
        return int(answer.text)


class Sidecar:
    """A running sidecar, with its file beside it."""

    def __init__(self, space, version, name, more="", text=None):
        self.space, self.version, self.name = space, version, name
        self.rules = text or RULES.format(app=space.app.port, redis=space.redis_port, more=more)
        self.port, self.admin = free_port(), free_port()
        self.file = space.processes.folder / f"{name}.toml"
        self.start()

    def start(self, version=None):
        """Starts it, with another version if one is given."""
        self.version = version or self.version
        self.write_file()
        program = self.version.program
        self.space.processes.start(self.name, [program, "--config", self.file], environment(),
                                   r'"listening"')
        self.child = self.space.processes.running[-1]
        return self

    def write_file(self, first=""):
        text = (f'{first}\nlisten.address = "127.0.0.1:{self.port}"\n'
                f'admin.address = "127.0.0.1:{self.admin}"\nlog.format = "json"\n{self.rules}')
        self.file.write_text(text)

    def stop(self, how="terminate"):
        getattr(self.child, how)()
        self.child.wait(TIMEOUT_SECONDS)

    def client(self):
        return Client(self.port)

    def admin_get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=TIMEOUT_SECONDS)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def metric(self, name):
        """The sum of a metric over its labels; `None` where this version has none."""
        values = [float(line.rsplit(" ", 1)[1]) for line in self.admin_get("/metrics").splitlines()
                  if line.split("{")[0].split(" ")[0] == name]
        return sum(values) if values else None

    def command(self, *words):
        """A command of its own version against it."""
        admin = ["--admin", f"http://127.0.0.1:{self.admin}"]
        done = subprocess.run([str(self.version.program), *words, *admin], env=environment(),
                              capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        if done.returncode != 0:
            raise Failed(f"{words}: {done.returncode}: {done.stderr}")
        return done.stdout

    def log(self):
        return self.space.processes.log(self.name)


class Namespace:
    """What one promise is tried with, and what was found."""

    def __init__(self, processes, app, old, new, options):
        self.processes, self.app, self.old, self.new = processes, app, old, new
        self.writes, self.verbose = options.writes, options.verbose
        self.checks, self.wrong, self.seen = 0, [], {}
        self.redis_port = free_port()
        self.start_redis()

    @property
    def one_protocol(self):
        return self.old.protocol == self.new.protocol

    def start_redis(self):
        """Starts Redis, with what it held when it was stopped."""
        command = ["redis-server", "--port", self.redis_port, "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--dir", self.processes.folder]
        self.processes.start("redis", command, environment(), "Ready to accept connections")
        self.redis = self.processes.running[-1]

    def stop_redis(self):
        self.ask_redis("SAVE")
        self.redis.terminate()
        self.redis.wait(TIMEOUT_SECONDS)

    def ask_redis(self, command):
        with socket.create_connection(("127.0.0.1", self.redis_port), TIMEOUT_SECONDS) as redis:
            redis.sendall(f"{command}\r\n".encode())
            return redis.recv(1 << 16).decode(errors="replace")

    def start(self, version, name=None, more="", text=None):
        return Sidecar(self, version, name or version.name, more, text)

    def pair(self, more=""):
        """One of each, the older one first, as in a roll-out."""
        return self.start(self.old, more=more), self.start(self.new, more=more)

    def check(self, what, is_so, detail=""):
        self.checks += 1
        if self.verbose:
            print(f"  {'ok ' if is_so else 'NOT'} {what}" + ("" if is_so else f": {detail}"),
                  flush=True)
        if not is_so:
            self.wrong.append(f"not so: {what}: {str(detail)[:600]}")
        return is_so

    def count(self, what, number=1):
        self.seen[what] = self.seen.get(what, 0) + number

    def eventually(self, what, test):
        """Waits until it is so, and returns how long that took, in seconds."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_SECONDS:
            found = test()
            if found:
                self.check(what, True)
                return time.monotonic() - began
            time.sleep(0.02)
        self.check(what, False, f"not within {PATIENCE_SECONDS} s")
        return PATIENCE_SECONDS

    def hits(self, sidecar, item="hit"):
        client = sidecar.client()
        return self.eventually(f"the {sidecar.version.name} one serves hits",
                               lambda: client.read(item).cache == "HIT")

    def met(self, sidecar):
        """Returns when a sidecar of the newer version has noticed one of another protocol."""
        self.eventually("the newer one notices the other",
                        lambda: "another protocol" in sidecar.admin_get("/ready"))

    def race(self, sidecars, writes, items=8, readers=2):
        """Writers and readers at all of these. No read may tell less than the number of a write
        that was answered before the read began."""
        acknowledged = [0] * items
        lock, left, stale = threading.Lock(), [writes], []
        reads, failures = {}, []
        ends = threading.Event()

        def write(sidecar, number):
            client, at = sidecar.client(), number
            while True:
                with lock:
                    if left[0] == 0:
                        return
                    left[0] -= 1
                at = (at + 1) % items
                told = client.write(f"race-{at}")
                with lock:
                    acknowledged[at] = max(acknowledged[at], told)
                # The writer is the first to look.
                for other in sidecars:
                    look(other, clients[number][other.name], at)

        def look(sidecar, client, at):
            before = acknowledged[at]
            found = client.read(f"race-{at}")
            kind = f"{sidecar.name} {found.cache}"
            with lock:
                reads[kind] = reads.get(kind, 0) + 1
                if found.status != 200 or int(found.text) < before:
                    stale.append(f"{sidecar.name}: {found} after {before}")

        def read(sidecar, number):
            client, at = sidecar.client(), number
            while not ends.is_set():
                at = (at + 1) % items
                look(sidecar, client, at)

        def guarded(work, *arguments):
            try:
                work(*arguments)
            except Exception as error:  # noqa: BLE001: whatever it is, the race is lost.
                failures.append(f"{type(error).__name__}: {error}")

        writing = [(write, sidecar, number) for number, sidecar in enumerate(sidecars)]
        reading = [(read, sidecar, number) for sidecar in sidecars for number in range(readers)]
        clients = {number: {sidecar.name: sidecar.client() for sidecar in sidecars}
                   for number in range(len(sidecars))}
        threads = [threading.Thread(target=guarded, args=work, daemon=True)
                   for work in [*writing, *reading]]
        for thread in threads:
            thread.start()
        for thread in threads[:len(writing)]:
            thread.join()
        ends.set()
        for thread in threads[len(writing):]:
            thread.join()
        self.count("writes", writes - left[0])
        for kind, number in sorted(reads.items()):
            self.count(f"reads ({kind})", number)
        self.check("every reader and writer came to its end", not failures, failures[:3])
        self.check("no read is older than an answered write", not stale,
                   f"{len(stale)} stale: {json.dumps(stale[:5])}")
        return reads
