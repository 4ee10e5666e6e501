#!/usr/bin/env python3
"""Instructions that a request takes in user space, counted by callgrind.

    python3 benches/instructions.py target/release/sidecache [scenario ...]
    python3 benches/instructions.py --check target/release/sidecache    # against the budgets
    python3 benches/instructions.py --top target/release/sidecache hit  # the functions that take most
    python3 benches/instructions.py --flame hit.svg target/release/sidecache hit
    python3 benches/instructions.py --renew target/release/sidecache    # writes the budgets anew

Runs the sidecar under `valgrind --tool=callgrind` in front of an origin of its own, and sends each
request so often on one connection, after some that warm it up. The counters are set to zero before
and read after, so start and end are not in them. Of some series, the second least counts: it is the same
on a busy machine and on an idle one. `--redis` adds hits from a redis-server of its own, on a free port, with the memory tier off.

The budgets are in benches/instructions.json, with the functions that took most when they were
written: `--check` names those that grew.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import html
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BODY = b"x" * 1024
# How often a request is sent before it is counted, and in each of some series. What runs in the
# background goes by the clock, and one hit in 32, by chance, is looked at for its tags: both fall
# into some of the series. Half of those of 20 hits have none, so that the second least of 24 is
# free of it; of 40 hits and 12 series, one in ten scenarios was not.
WARM_UP, COUNTED, SERIES = 60, 20, 24
SECRET = "0123456789abcdef0123456789abcdef"
BUDGETS = pathlib.Path(__file__).with_name("instructions.json")
# How far above its budget a scenario may be, in percent. Repeated runs of one binary differ by less
# than half a percent (how often a thread parks, hash seeds); what the processor offers to memchr and
# memcpy differs more between machines, and is pinned as far as it can be.
TOLERANCE = 2.0
# The same on another processor than the one that the budgets were counted on.
OTHER_TOLERANCE = 5.0
# What the allocator is called by. A vector that grows counts each time.
ALLOCATING = re.compile(r"_rjem_(malloc|mallocx|calloc|realloc|rallocx|aligned_alloc|posix_memalign)('|$)")
# How many functions of each scenario are kept beside its budget.
KEPT = 60
# glibc chooses memcpy and the like by the processor. These are what every x86-64 machine has.
TUNABLES = "glibc.cpu.hwcaps=-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token():
    """A token of 800 bytes or so, as issuers make them."""
    claims = {"exp": int(time.time()) + 3600, "tenant": "acme", "scope": "x" * 500}
    message = b".".join(encoded(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (message + b"." + encoded(hmac.new(SECRET.encode(), message, hashlib.sha256).digest())).decode()


def session():
    """A session cookie of 150 bytes or so, as Flask signs it."""
    payload = encoded(json.dumps({"_user_id": "7", "_fresh": True, "_id": "x" * 64}).encode())
    message = payload + b"." + encoded(int(time.time()).to_bytes(4, "big"))
    key = hmac.new(SECRET.encode(), b"cookie-session", hashlib.sha1).digest()
    return (message + b"." + encoded(hmac.new(key, message, hashlib.sha1).digest())).decode()


TOKEN = {"Authorization": f"Bearer {token()}"}
COOKIE = {"Cookie": f"session={session()}"}


class Scenario:
    """A request that is sent again and again, and what must come back."""

    def __init__(self, path, headers=None, method="GET", body=b"", status=200, cache="HIT", sidecar="memory",
                 burst=0, pause=0):
        # `burst`: how many are sent at once before all others; `pause`: seconds before each one.
        self.sidecar, self.status, self.cache, self.burst, self.pause = sidecar, status, cache, burst, pause
        lines = {"Host": "bench.test", "Accept-Encoding": "identity", **(headers or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


SCENARIOS = {
    "hit": Scenario("/hit"),
    "hit, browser": Scenario("/hit", {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:139.0) Gecko/20100101 Firefox/139.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-US,en;q=0.5", "Accept-Encoding": "gzip, deflate, br, zstd",
        "Connection": "keep-alive", "Referer": "http://bench.test/", "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Priority": "u=0, i",
    }),
    "hit, 304": Scenario("/hit", {"If-None-Match": '"1"'}, status=304),
    "hit, range": Scenario("/hit", {"Range": "bytes=0-99"}, status=206),
    "hit, vary": Scenario("/vary", {"Save-Data": "on"}),
    "hit, public, token": Scenario("/public/site", TOKEN, sidecar="callers"),
    "hit, public, field from the token": Scenario("/public/tenant", TOKEN, sidecar="callers"),
    "hit, shared, token": Scenario("/shared/site", TOKEN),
    "hit, shared, field from the token": Scenario("/shared/tenant", TOKEN, sidecar="callers"),
    "hit, private, cookie": Scenario("/private/cookie", COOKIE),
    "hit, private, session from the cookie": Scenario("/private/session", COOKIE, sidecar="callers"),
    # Of few requests without a route each is looked at, for what to cache next; of many, samples are.
    "pass, few": Scenario("/pass", cache="BYPASS", pause=0.006),
    "pass": Scenario("/pass", cache="BYPASS", burst=1500),
    "mutation": Scenario("/things/7", method="POST", body=b'{"name": "a thing"}', cache="BYPASS"),
    "hit, redis": Scenario("/hit", sidecar="redis"),
}

ROUTES = {
    "/hit": 'scope = "public"',
    "/vary": 'scope = "public"',
    "/shared/site": 'scope = "shared"\nkey = ["site"]',
    "/private/cookie": "",
    "/things/{id}": 'scope = "public"\ntags = ["things", "thing:{id}"]',
}
# The same requests with and without a field from what their callers show.
OF_CALLERS = {
    **{f"/{scope}/{key}": f'scope = "{scope}"\nkey = ["{key}"]'
       for scope in ("public", "shared") for key in ("site", "tenant")},
    "/private/session": 'key = ["user"]',
}
VERIFIED = (
    f'[jwt]\nalgorithms = ["HS256"]\nsecret = "{SECRET}"\n'
    '[fields]\ntenant = { jwt = "/tenant" }\nsite = { host = true }\n'
    f'user = {{ cookie = "session", format = "flask", secret = "{SECRET}", max_age = "31d" }}\n'
)


def config_of(sidecar, ports):
    memory = "0" if sidecar == "redis" else "256MiB"
    redis = f'[redis]\nurl = "redis://127.0.0.1:{ports["redis"]}/0"\n' if sidecar == "redis" else ""
    routes = {**ROUTES, **(OF_CALLERS if sidecar == "callers" else {})}
    return (
        f'[listen]\naddress = "127.0.0.1:{ports["listen"]}"\n'
        f'[upstream]\nurl = "http://127.0.0.1:{ports["origin"]}"\n'
        f'[admin]\naddress = "127.0.0.1:{ports["admin"]}"\n'
        f'[memory]\nsize = "{memory}"\n{redis}'
        '[log]\nlevel = "warn"\naccess = false\n'
        + (VERIFIED if sidecar == "callers" else "[fields]\nsite = { host = true }\n")
        + "".join(f'[[routes]]\npath = "{path}"\nttl = "1h"\n{more}\n' for path, more in routes.items())
        + '[[purges]]\npath = "/things/{id}"\ntags = ["things", "thing:{id}"]\n'
    )


def message(connection, rest):
    """The next message of a connection: its head, its body, and what was read of the next one."""
    while b"\r\n\r\n" not in rest:
        more = connection.recv(65536)
        if not more:
            return None, b"", b""
        rest += more
    head, rest = rest.split(b"\r\n\r\n", 1)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    length = 0 if length is None or b" 304 " in head[:14] else int(length.group(1))
    while len(rest) < length:
        rest += connection.recv(65536)
    return head, rest[:length], rest[length:]


def answer(connection):
    """Serves one connection of the origin. Each response is one segment, so that runs are alike."""
    rest = b""
    with connection, contextlib.suppress(OSError):
        while True:
            head, _, rest = message(connection, rest)
            if head is None:
                return
            vary = b"Vary: Save-Data\r\n" if b" /vary " in head else b""
            connection.sendall(
                b'HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: "1"\r\n'
                b"Content-Type: text/plain\r\n%sContent-Length: %d\r\n\r\n%s" % (vary, len(BODY), BODY)
            )


def serve_origin():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept():
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port, process):
    deadline = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def process(command, **options):
    started = subprocess.Popen(command, **options)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(timeout=120)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def burst(connection, scenario, times):
    """Sends a request so often without waiting for each response."""
    for _ in range(times // 50):
        connection.sendall(50 * scenario.request)
        rest = b""
        for _ in range(50):
            head, _, rest = message(connection, rest)
            assert head is not None


def send(connection, scenario, times):
    """Sends a request so often, and checks what comes back, the last time where it came from, too."""
    for _ in range(times):
        time.sleep(scenario.pause)
        connection.sendall(scenario.request)
        head, _, rest = message(connection, b"")
        status = int(head.split(b" ", 2)[1])
        assert (status, rest) == (scenario.status, b""), (head, rest)
    cache = re.search(rb"\r\nx-cache: (\w+)", head).group(1).decode()
    assert cache == scenario.cache, head.decode()


class Profile:
    """What callgrind has counted: instructions of a function itself, by its name, and allocations."""

    def __init__(self, text):
        self.own, self.allocations, names, stack, called, skip = {}, 0, {}, "", "", False
        for line in text.splitlines():
            if line.startswith("fn="):
                key, _, name = line[3:].partition(" ")
                if name:
                    names[key] = re.sub(r"::h[0-9a-f]{16}$", "", name)
                stack = names[key]
            elif line.startswith(("cfn=", "cfi=", "cob=", "fl=", "fi=", "fe=", "ob=")):
                if line.startswith("cfn="):
                    key, _, name = line[4:].partition(" ")
                    if name:
                        names[key] = re.sub(r"::h[0-9a-f]{16}$", "", name)
                    called = names[key]
            elif line.startswith("calls="):
                if ALLOCATING.match(called):
                    self.allocations += int(line[6:].split()[0])
                skip = True
            elif line[:1] in "0123456789+-*" and line:
                # The line after `calls=` is what the called function took.
                if not skip:
                    self.own[stack] = self.own.get(stack, 0) + int(line.split()[1])
                skip = False
        self.total = sum(self.own.values())

    def by_function(self):
        """Instructions by function. With `--separate-callers` a name has its callers behind it."""
        functions = {}
        for stack, count in self.own.items():
            name = stack.split("'", 1)[0]
            functions[name] = functions.get(name, 0) + count
        return functions

    def top(self, most):
        functions = self.by_function()
        ranked = sorted(functions, key=functions.get, reverse=True)[:most]
        return {name: round(functions[name] / COUNTED) for name in ranked}


def dumped(folder, before):
    """The text of the dump that callgrind has just written."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in set(pathlib.Path(folder).glob("out.*")) - before:
            text = path.read_text(errors="replace")
            if "\ntotals:" in text:
                return text
        time.sleep(0.05)
    raise TimeoutError("callgrind wrote no dump")


def measure(binary, kind, scenarios, origin, callers):
    """Profiles of these scenarios, one after the other in one process."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ports = {"origin": origin, **{name: free_port() for name in ("listen", "admin", "redis")}}
        if kind == "redis":
            command = ["redis-server", "--port", str(ports["redis"]), "--bind", "127.0.0.1", "--save", "",
                       "--dir", folder]
            redis = stack.enter_context(process(command, stdout=subprocess.DEVNULL))
            connect(ports["redis"], redis).close()
        config = os.path.join(folder, "proxy.toml")
        pathlib.Path(config).write_text(config_of(kind, ports))
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", f"--vgdb-prefix={folder}/vgdb",
                   *([f"--separate-callers={callers}"] if callers else []), binary, "--config", config]
        log = stack.enter_context(open(os.path.join(folder, "log"), "w+"))
        environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, "TOKIO_WORKER_THREADS": "1"}
        sidecar = stack.enter_context(process(command, stdout=log, stderr=log, env=environment))
        try:
            with connect(ports["listen"], sidecar) as client:
                # The first hits are counted one by one, by their tags; of the others, samples are.
                burst(client, SCENARIOS["hit"], 4200)
            for name, scenario in scenarios.items():
                with connect(ports["listen"], sidecar) as client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    burst(client, scenario, scenario.burst)
                    send(client, scenario, WARM_UP)
                    series = [counted(folder, sidecar.pid, client, scenario) for _ in range(SERIES)]
                    yield name, sorted(series, key=lambda one: one.total)[1]
        except (AssertionError, OSError):
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            raise


def counted(folder, pid, client, scenario):
    """What is counted while a request is sent some times."""
    before = set(pathlib.Path(folder).glob("out.*"))
    vgdb(folder, pid, "zero")
    send(client, scenario, COUNTED)
    vgdb(folder, pid, "dump")
    return Profile(dumped(folder, before))


def vgdb(folder, pid, what):
    done = subprocess.run(["vgdb", f"--vgdb-prefix={folder}/vgdb", f"--pid={pid}", what],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def measured(binary, names, callers=0):
    """Profiles of these scenarios, each tier in a process of its own."""
    origin, profiles = serve_origin(), {}
    for kind in ("memory", "callers", "redis"):
        scenarios = {name: one for name, one in SCENARIOS.items() if name in names and one.sidecar == kind}
        if scenarios:
            profiles.update(measure(binary, kind, scenarios, origin, callers))
    return {name: profiles[name] for name in names}


def per_request(profile):
    return round(profile.total / COUNTED)


def allocations(profile):
    return round(profile.allocations / COUNTED, 1)


def grown(profile, kept):
    """The functions that take more than when the budget was written, the largest growth first."""
    now = profile.top(10_000)
    # What is not kept took less than the least of what is.
    least = min(kept.values(), default=0)
    growth = {name: count - kept.get(name, 0) for name, count in now.items() if name in kept or count > least}
    return sorted(((more, name) for name, more in growth.items() if more > 20), reverse=True)[:12]


def processor():
    """What decides which code libraries choose: the model and the features of the processor."""
    fields = dict(line.partition(":")[::2] for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines())
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = hashlib.sha256(" ".join(sorted(fields.get("flags", "").split())).encode()).hexdigest()
    return f"{fields.get('model name')}, flags {flags[:16]}"


def check(profiles):
    """Compares with the budgets. Returns whether all hold."""
    kept, holds = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}, True
    budgets = kept.get("scenarios", {})
    is_same = kept.get("processor") == processor()
    allowed, more_allocations = (TOLERANCE, 0.4) if is_same else (OTHER_TOLERANCE, 1.0)
    if budgets and not is_same:
        print(f"the budgets are of another processor: {OTHER_TOLERANCE:g} % are allowed")
    for name, profile in profiles.items():
        count, budget = per_request(profile), budgets.get(name)
        if budget is None:
            print(f"{name}: {count:,} instructions, and no budget; --renew writes one")
            holds = False
            continue
        excess = 100 * (count / budget["instructions"] - 1)
        allocated = allocations(profile)
        print(f"{name}: {count:,} of {budget['instructions']:,} instructions ({excess:+.1f} %), "
              f"{allocated} of {budget['allocations']} allocations")
        # Background work allocates as well, the more of it the longer a series lasts.
        if allocated > budget["allocations"] * (1 + allowed / 100) + more_allocations:
            holds = False
            print("  more allocations than its budget has")
        if excess > allowed:
            holds = False
            print(f"  more than {allowed:g} % above its budget; what grew, in instructions of a request:")
            for more, function in grown(profile, budget["functions"]):
                print(f"  {more:+8,}  {function}")
        elif excess < -2 * TOLERANCE:
            print("  far below its budget: --renew keeps what was won")
    if not holds:
        print("benches/instructions.py: over budget. Where that is meant: benches/instructions.py --renew")
    return holds


def renew(profiles, binary):
    kept = json.loads(BUDGETS.read_text())["scenarios"] if BUDGETS.exists() else {}
    for name, profile in profiles.items():
        kept[name] = {"instructions": per_request(profile), "allocations": allocations(profile), "functions": profile.top(KEPT)}
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    whole = {
        "about": "Instructions of a request in user space: the budgets of benches/instructions.py --check, for the "
        "binary that `release/build` makes. Another compiler makes other code: after a new "
        "toolchain, and after a change that is meant to cost more, or that costs less: "
        "python3 benches/instructions.py --renew --redis target/release/sidecache",
        "rustc": rustc,
        "processor": processor(),
        "scenarios": {name: kept[name] for name in SCENARIOS if name in kept},
    }
    BUDGETS.write_text(json.dumps(whole, indent=1) + "\n")


def flame(profile, path):
    """Writes a flame graph: each bar is a function, below it who called it."""
    root = [0, {}]
    for stack, count in profile.own.items():
        node = root
        node[0] += count
        for name in reversed(stack.split("'")):
            node = node[1].setdefault(name, [0, {}])
            node[0] += count
    width, row, bars, deepest = 1600, 16, [], 0

    def draw(node, left, depth):
        nonlocal deepest
        deepest = max(deepest, depth)
        for name, child in sorted(node[1].items()):
            wide = width * child[0] / root[0]
            if wide >= 0.5:
                title = html.escape(f"{name}: {child[0] / COUNTED:,.0f} instructions ({100 * child[0] / root[0]:.1f} %)")
                hue = 10 + hash(name) % 40
                label = html.escape(name[: int(wide / 7)]) if wide > 30 else ""
                bars.append((depth, f'<g><title>{title}</title><rect x="{left:.1f}" y="@" width="{wide:.1f}" '
                             f'height="{row - 1}" fill="hsl({hue},80%,65%)"/><text x="{left + 2:.1f}" y="@t">{label}</text></g>'))
                draw(child, left, depth + 1)
            left += wide

    draw(root, 0, 0)
    height = (deepest + 1) * row
    drawn = "".join(bar.replace("@t", str(height - depth * row - 4)).replace("@", str(height - (depth + 1) * row))
                    for depth, bar in bars)
    pathlib.Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="monospace" '
        f'font-size="11">{drawn}</svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default="target/release/sidecache")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help="; ".join(SCENARIOS))
    parser.add_argument("--redis", action="store_true", help="also what needs a redis-server")
    parser.add_argument("--check", action="store_true", help="exit 1 where a budget is exceeded")
    parser.add_argument("--renew", action="store_true", help="write the budgets")
    parser.add_argument("--top", action="store_true", help="print the functions that take most")
    parser.add_argument("--flame", metavar="FILE", help="write a flame graph of one scenario")
    args = parser.parse_args()
    for unknown in set(args.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {unknown!r}; there are: {'; '.join(SCENARIOS)}")
    names = args.scenarios or [name for name, one in SCENARIOS.items() if args.redis or one.sidecar != "redis"]
    if args.flame and len(names) != 1:
        parser.error("--flame takes one scenario")
    profiles = measured(args.binary, names, callers=60 if args.flame else 0)
    if args.check:
        sys.exit(0 if check(profiles) else 1)
    for name, profile in profiles.items():
        print(f"{name}: {per_request(profile):,} instructions and {allocations(profile)} allocations a request")
        for function, count in profile.top(40 if args.top else 0).items():
            print(f"  {count:7,}  {function}")
    if args.flame:
        flame(profiles[names[0]], args.flame)
    if args.renew:
        renew(profiles, args.binary)


if __name__ == "__main__":
    main()
