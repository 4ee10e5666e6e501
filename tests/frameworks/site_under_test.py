"""What the frameworks' scripts have in common: visitors with browsers' cookies, and checks.

Each visitor has a cookie jar of the standard library, which knows domains, paths and expiry as
browsers do. A visitor can ask the app straight or through the sidecar; the `Host` is the same.
"""

import dataclasses
import http.client
import http.cookiejar
import json
import re
import urllib.parse
import urllib.request

from harness.browser import HOST, PROFILES

TIMEOUT_SECONDS = 30
SITE = f"http://{HOST}"
# What belongs to a connection or is said by a proxy. `Date` and ids of requests are never twice
# the same.
IGNORED = {"connection", "keep-alive", "transfer-encoding", "content-length", "via", "age",
           "cache-status", "x-cache", "date", "host", "server", "x-request-id", "x-runtime"}


def page_of(root, name):
    """The TOML of a page in docs/, as it is printed: a whole file, and perhaps what may be added."""
    text = (root / "docs" / "src" / "frameworks" / f"{name}.md").read_text()
    whole, *more = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return whole, more


def at_port(rules, port):
    """The same rules for an app at this port; nothing else is changed."""
    changed, count = re.subn(r'"http://127\.0\.0\.1:\d+"', f'"http://127.0.0.1:{port}"', rules)
    if count != 1:
        raise AssertionError(f"the page names {count} addresses of an app, not one")
    return changed


@dataclasses.dataclass
class Response:
    target: str
    status: int
    headers: list
    body: bytes

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def cache(self):
        return self.header("x-cache") or "none"

    @property
    def why(self):
        return f"{self.status} {self.cache}: {self.header('cache-status')}"

    def json(self):
        return json.loads(self.body)

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name]

    # What http.cookiejar asks of a response.
    def info(self):
        return self

    def get_all(self, name, default=None):
        return self.all(name.lower()) or default


class Visitor:
    """One browser. `analytics` gives it cookies of Google that change with each page."""

    def __init__(self, site, profile="chrome", analytics=False, headers=None):
        self.site, self.profile, self.analytics = site, profile, analytics
        self.headers = headers or {}
        # By default the jar refuses cookies of names without a dot; HOST has dots.
        self.jar = http.cookiejar.CookieJar()
        self.pages = 0

    def cookie(self, begin):
        """The value of the first cookie whose name begins so."""
        return next((one.value for one in self.jar if one.name.startswith(begin)), None)

    def get(self, target, **more):
        return self.send("GET", target, **more)

    def post(self, target, form=None, **more):
        return self.send("POST", target, form=form, **more)

    def send(self, method, target, form=None, json_body=None, headers=None, straight=False,
             raw=None):
        target = target.removeprefix(SITE)
        self.pages += 1
        body, sent = raw, {"Host": HOST, **PROFILES[self.profile], **self.headers}
        # Bodies are compared as text.
        sent["Accept-Encoding"] = "identity"
        if form is not None:
            body = urllib.parse.urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        if json_body is not None:
            body, sent["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        if method not in ("GET", "HEAD"):
            sent["Origin"] = SITE
        sent |= headers or {}
        request = urllib.request.Request(SITE + target, method=method)
        self.jar.add_cookie_header(request)
        cookies = [request.get_header("Cookie")] if request.has_header("Cookie") else []
        if self.analytics:
            cookies += ["_ga=GA1.1.77.1700000000",
                        f"_ga_4X7=GS1.1.1700000000.{self.pages}.1.170000.0.0.0"]
        if cookies:
            sent["Cookie"] = "; ".join(cookies)
        found = self._exchange(method, target, sent, body, straight)
        self.jar.extract_cookies(found, request)
        return found

    def _exchange(self, method, target, sent, body, straight):
        port = self.site.app if straight else self.site.sidecar
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Response(target, response.status, response.getheaders(), response.read())
        finally:
            connection.close()


class Site:
    """A running app with a sidecar in front of it, and what was found."""

    def __init__(self, verbose=False):
        self.app = self.sidecar = None
        self.verbose = verbose
        self.checks, self.wrong = 0, []

    def visitor(self, **more):
        return Visitor(self, **more)

    def check(self, what, is_so, detail=""):
        self.checks += 1
        if self.verbose:
            print(f"{'ok  ' if is_so else 'NOT '} {what}" + ("" if is_so else f": {detail}"),
                  flush=True)
        if not is_so:
            self.wrong.append(f"not so: {what}: {str(detail)[:500]}")
        return is_so

    def hit(self, what, response, expected="HIT"):
        """A response of this kind, whether or not the time of day allows a shorter way."""
        return self.check(f"{what}: {expected}", response.cache == expected, response.why)

    def warm(self, visitor, *targets):
        """Reads each page twice; the second one is the one that counts, and is returned."""
        for target in targets:
            visitor.get(target)
        return [visitor.get(target) for target in targets]

    def same(self, what, visitor, target, ignore=None, **more):
        """The same page straight and through the sidecar: status, body and headers."""
        direct = visitor.get(target, straight=True, **more)
        through = visitor.get(target, **more)
        cut = ignore or (lambda text: text)
        before, after = _compared(direct), _compared(through)
        detail = f"{through.why}: {before} straight, {after} through"
        if self.check(f"{what}: status and headers are the app's", before == after, detail):
            one, other = cut(direct.text), cut(through.text)
            self.check(f"{what}: the body is the app's", one == other, _apart(one, other))
        return through


def _compared(response):
    head = {}
    for key, value in response.headers:
        if key.lower() not in IGNORED and key.lower() != "set-cookie":
            head.setdefault(key.lower(), []).append(value)
    return response.status, dict(sorted(head.items()))


def _apart(one, other):
    at = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b),
              min(len(one), len(other)))
    begin = max(0, at - 60)
    return f"from {at}: {one[begin:at + 80]!r} straight, {other[begin:at + 80]!r} through"


def field(page, name):
    """The value of a hidden field of a form, or of a `meta` element."""
    text = page.text
    for tag in re.findall(r"<(?:input|meta)\b[^>]*>", text):
        if re.search(rf"""name=["']{re.escape(name)}["']""", tag):
            found = re.search(r"""(?:value|content)=["']([^"']*)["']""", tag)
            if found:
                return found[1]
    raise AssertionError(f"{page.target} has no field {name}: {page.why} {text[:300]}")
