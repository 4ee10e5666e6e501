#!/usr/bin/env python3
"""Instructions that a hit and a pass take in user space, counted by callgrind.

    python3 benches/instructions.py target/release/sidecache [scenario ...]

Runs the sidecar under `valgrind --tool=callgrind` in front of an origin of its own, on memory alone,
and sends the same requests on one connection: once few, once many. The difference is what each
request costs, start and end apart. The count is the same on a busy machine and on an idle one.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BODY = b"x" * 1024
FEW, MANY = 500, 2500
SECRET = "0123456789abcdef0123456789abcdef"


def token():
    """A token of 800 bytes or so, as issuers make them."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"exp": int(time.time()) + 3600, "tenant": "acme", "scope": "x" * 500}
    message = b".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (message + b"." + part(hmac.new(SECRET.encode(), message, hashlib.sha256).digest())).decode()


def session():
    """A session cookie of 150 bytes or so, as Flask signs it."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    payload = part(json.dumps({"_user_id": "7", "_fresh": True, "_id": "x" * 64}).encode())
    message = payload + b"." + part(int(time.time()).to_bytes(4, "big"))
    key = hmac.new(SECRET.encode(), b"cookie-session", hashlib.sha1).digest()
    return (message + b"." + part(hmac.new(key, message, hashlib.sha1).digest())).decode()


TOKEN = {"Authorization": f"Bearer {token()}"}
COOKIE = {"Cookie": f"session={session()}"}


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def headers_of(path):
    if path.startswith("/private/"):
        return COOKIE
    return {} if path in ("/hit", "/pass") else TOKEN


def instructions(binary, path, count, upstream):
    """Instructions of a whole run with so many requests for this path."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = os.path.join(folder, "proxy.toml")
        with open(config, "w") as file:
            file.write(
                f'[listen]\naddress = "127.0.0.1:{port}"\n'
                f'[upstream]\nurl = "http://127.0.0.1:{upstream}"\n'
                f'[admin]\naddress = "127.0.0.1:{free_port()}"\n'
                '[log]\nlevel = "warn"\naccess = false\n'
                '[[routes]]\npath = "/hit"\nttl = "1h"\nscope = "public"\n'
                # The same request with and without a field from its token.
                f'[jwt]\nalgorithms = ["HS256"]\nsecret = "{SECRET}"\n'
                '[fields]\ntenant = { jwt = "/tenant" }\nsite = { host = true }\n'
                f'user = {{ cookie = "session", format = "flask", secret = "{SECRET}", max_age = "31d" }}\n'
                '[[routes]]\npath = "/private/cookie"\nttl = "1h"\n'
                '[[routes]]\npath = "/private/session"\nttl = "1h"\nkey = ["user"]\n'
                + "".join(
                    f'[[routes]]\npath = "/{scope}/{key}"\nttl = "1h"\nscope = "{scope}"\nkey = ["{key}"]\n'
                    for scope in ("public", "shared")
                    for key in ("site", "tenant")
                )
            )
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        sidecar = subprocess.Popen(
            [*command, binary, "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                    client.connect()
                    break
                except OSError:
                    if time.monotonic() > deadline or sidecar.poll() is not None:
                        raise
                    time.sleep(0.1)
            for _ in range(count):
                client.request("GET", path, headers=headers_of(path))
                response = client.getresponse()
                assert response.status == 200 and response.read() == BODY
            assert response.getheader("x-cache") == ("BYPASS" if path == "/pass" else "HIT")
            client.close()
            sidecar.send_signal(signal.SIGTERM)
            said = sidecar.communicate(timeout=300)[1].decode()
        finally:
            if sidecar.poll() is None:
                sidecar.kill()
                sidecar.wait()
        return int(re.search(r"Collected : (\d+)", said).group(1))


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/sidecache"
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    scenarios = {"hit": "/hit", "pass": "/pass"}
    for scope in ("public", "shared"):
        scenarios[f"hit, {scope}, token"] = f"/{scope}/site"
        scenarios[f"hit, {scope}, field from the token"] = f"/{scope}/tenant"
    scenarios["hit, private, cookie"] = "/private/cookie"
    scenarios["hit, private, session from the cookie"] = "/private/session"
    wanted = sys.argv[2:]
    for name, path in scenarios.items():
        if wanted and name not in wanted:
            continue
        few, many = (instructions(binary, path, count, origin.server_port) for count in (FEW, MANY))
        print(f"{name}: {(many - few) / (MANY - FEW):,.0f} instructions a request")


if __name__ == "__main__":
    main()
