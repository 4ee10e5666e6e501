"""The users of a scripted day: browsers and programs with the cookies and headers of real ones.

It knows HTTP and nothing of the apps, and of Sidecache the header `X-Cache` alone.
"""

import base64
import dataclasses
import hashlib
import http.client
import json
import os
import socket
import struct
import time
import urllib.parse

TIMEOUT_SECONDS = 30
# Apps build links from the host that they are asked for, so it is the same on both ways.
HOST = "app.example.test"
SOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

PROFILES = {
    "chrome": {
        "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
        "(KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        "Accept-Language": "en-US,en;q=0.9",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Sec-CH-UA": '"Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
        "Sec-CH-UA-Mobile": "?0",
        "Sec-CH-UA-Platform": '"Windows"',
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "same-origin",
        "Upgrade-Insecure-Requests": "1",
        "Priority": "u=0, i",
    },
    "firefox": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "DNT": "1",
        "Sec-GPC": "1",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "none",
        "Sec-Fetch-User": "?1",
    },
    "safari": {
        "User-Agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) Version/18.0 Safari/605.1.15",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.9",
        "Accept-Encoding": "gzip, deflate, br",
    },
    "program": {
        "User-Agent": "python-requests/2.32.3",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
    },
    "page-script": {
        "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
        "(KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "Accept": "application/json, text/plain, */*",
        "Accept-Language": "en-US,en;q=0.9",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
    },
}


def tracing(kind, step):
    """The headers by which a vendor's agent in the client follows a request."""
    low, long = f"{step:016x}", f"{step:032x}"
    return {
        "w3c": {"traceparent": f"00-{long}-{low}-01", "tracestate": f"vendor={low}"},
        "datadog": {
            "x-datadog-trace-id": str(step),
            "x-datadog-parent-id": str(step + 1),
            "x-datadog-origin": "rum",
            "x-datadog-sampling-priority": "1",
            "traceparent": f"00-{long}-{low}-01",
        },
        "sentry": {
            "sentry-trace": f"{long}-{low}-0",
            "baggage": f"sentry-environment=production,sentry-trace_id={long}",
        },
        "newrelic": {"newrelic": base64.b64encode(long.encode()).decode(), "x-request-id": long},
        "jaeger": {"uber-trace-id": f"{long}:{low}:0:1", "x-b3-traceid": long, "x-b3-spanid": low},
        "elastic": {"elastic-apm-traceparent": f"00-{long}-{low}-01"},
        None: {},
    }[kind]


@dataclasses.dataclass
class Exchange:
    """A request of the day, and what came of it."""

    user: str
    method: str
    target: str
    # `read` could come from a cache; `post-read` is one that is no GET; `page` has a form, a
    # message or an error that is for this request alone; `write` and `socket` speak for themselves.
    kind: str
    status: int
    headers: list
    body: bytes
    seconds: float
    sent_cookies: dict

    @property
    def cache(self):
        return self.header("x-cache") or "none"

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode()


class Browser:
    """One user. Reads and writes return an `Exchange`, which is noted in the day, too."""

    def __init__(self, day, name, profile="chrome", headers=None, analytics=False, trace=None):
        self.day, self.name = day, name
        self.profile = profile
        self.headers = dict(headers or {})
        self.analytics, self.trace = analytics, trace
        self.cookies = {}
        # The validators of what the browser has in its own cache: it asks with them when told to.
        self.validators = {}
        self.connection = None

    def read(self, target, **more):
        return self.send("GET", target, "read", **more)

    def page(self, target, **more):
        return self.send("GET", target, "page", **more)

    def write(self, method, target, **more):
        return self.send(method, target, "write", **more)

    def post_read(self, target, **more):
        return self.send("POST", target, "post-read", **more)

    def send(self, method, target, kind, json_body=None, form=None, headers=None, again=False,
             expect=None):
        """`again` asks with the validator of the last response; `expect` is the status."""
        step = self.day.next_step()
        body, sent = None, self._head(step)
        if json_body is not None:
            body, sent["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        if form is not None:
            body = urllib.parse.urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        if again and target in self.validators:
            sent["If-None-Match"] = self.validators[target]
        sent |= headers or {}
        cookies = dict(self.cookies)
        began = time.perf_counter()
        response, received = self._exchange(method, target, sent, body)
        took = time.perf_counter() - began
        found = Exchange(self.name, method, target, kind, response.status, response.getheaders(),
                         received, took, cookies)
        self._remember(target, found)
        self.day.note(found)
        if expect is not None and found.status != expect:
            text = found.body[:300].decode(errors="replace")
            raise AssertionError(f"{method} {target}: {found.status} and not {expect}: {text}")
        return found

    def _head(self, step):
        sent = {"Host": HOST, **PROFILES[self.profile], **tracing(self.trace, step), **self.headers}
        cookies = dict(self.cookies)
        if self.analytics:
            # The second one counts pages, so it is never the same.
            cookies |= {"_ga": f"GA1.1.{len(self.name)}77.1700000000",
                        "_ga_4X7": f"GS1.1.1700000000.{step}.1.170000{step:04}.0.0.0",
                        "_gid": "GA1.2.99.1700000000", "_fbp": "fb.1.1700000000.5"}
        if cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return sent

    def _exchange(self, method, target, sent, body):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.day.address, timeout=TIMEOUT_SECONDS)
        connection = self.connection
        try:
            return self._try(connection, method, target, sent, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            connection.close()
            # A kept connection may have been closed in between, as every browser expects. A write
            # may have been done all the same.
            if method not in ("GET", "HEAD"):
                raise
            return self._try(connection, method, target, sent, body)

    def _try(self, connection, method, target, sent, body):
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response, response.read()

    def _remember(self, target, found):
        if found.header("etag") and found.status == 200:
            self.validators[target] = found.header("etag")
        for key, value in found.headers:
            if key.lower() == "set-cookie":
                pair, *attributes = value.split(";")
                name, _, text = pair.strip().partition("=")
                low = [attribute.strip().lower() for attribute in attributes]
                is_gone = "max-age=0" in low or any("01 jan 1970" in one for one in low)
                if is_gone:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = text

    def talk(self, target, messages, headers=None):
        """Opens a WebSocket, sends each message and notes the answers as one exchange."""
        step = self.day.next_step()
        began = time.perf_counter()
        key = base64.b64encode(struct.pack(">QQ", step, step)).decode()
        sent = self._head(step) | {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key, **(headers or {})}
        with socket.create_connection(self.day.address, timeout=TIMEOUT_SECONDS) as stream:
            head = (f"{name}: {value}" for name, value in sent.items())
            lines = [f"GET {target} HTTP/1.1", *head]
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            reader = stream.makefile("rb")
            status = int(reader.readline().split()[1])
            head = http.client.parse_headers(reader)
            answers = []
            if status == 101:
                digest = hashlib.sha1((key + SOCKET_GUID).encode()).digest()
                if head["Sec-WebSocket-Accept"] != base64.b64encode(digest).decode():
                    raise AssertionError(f"{target}: not the Sec-WebSocket-Accept of this key")
                for message in messages:
                    stream.sendall(_frame(message.encode()))
                    answers.append(_read_frame(reader))
                stream.sendall(_frame(b"\x03\xe8", opcode=8))
        found = Exchange(self.name, "GET", target, "socket", status, list(head.items()),
                         b"\n".join(answers), time.perf_counter() - began, {})
        self.day.note(found)
        return found

    def close(self):
        if self.connection is not None:
            self.connection.close()


def _frame(payload, opcode=1):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    if len(payload) > 125:
        raise ValueError("a message of the day has at most 125 bytes")
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def _read_frame(reader):
    first, second = reader.read(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", reader.read(2))
    return bytes([first]) + reader.read(length)
