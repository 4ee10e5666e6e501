"""What must be equal: the same request of the day, straight to the app and through the sidecar.

Status, body and all headers are compared byte by byte, but for

- what belongs to a connection (`Connection`, `Keep-Alive`, `Transfer-Encoding`, `Content-Length`;
  the body itself is compared),
- what a proxy says of itself (`Via`, `Age`, `Cache-Status`, `X-Cache`),
- `Date`, which the app's server writes by the machine's clock,
- a session that the app signs anew although nothing in it has changed: on a hit it is absent. Its
  payload is compared with that of the cookie that the request had,
- of a 304, the headers that RFC 9110 15.4.5 does not name: what the client has stays as it is.
"""

IGNORED = {"connection", "keep-alive", "transfer-encoding", "content-length", "via", "age",
           "cache-status", "x-cache", "date"}
OF_304 = {"cache-control", "content-location", "etag", "expires", "vary", "set-cookie"}


def differences(straight, through, payload_of):
    """All differences of two days, each as a line of text. `payload_of` knows signed cookies."""
    found = []
    if len(straight) != len(through):
        found.append(f"{len(straight)} requests straight and {len(through)} through the sidecar")
    for at, (one, other) in enumerate(zip(straight, through)):
        name = f"request {at}, {one.user}: {one.method} {one.target} ({other.cache})"
        if (one.method, one.target) != (other.method, other.target):
            found.append(f"{name}: it is {other.method} {other.target} through the sidecar")
            # The days have parted; whatever follows is compared with something else.
            break
        found += [f"{name}: {text}" for text in _differences_of(one, other, payload_of)]
    return found


def _differences_of(one, other, payload_of):
    found = []
    if one.status != other.status:
        found.append(f"status {one.status} straight, {other.status} through the sidecar")
    before, after = _headers(one), _headers(other)
    after = _with_renewals(before, after, other, payload_of)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            found.append(f"{key}: {before.get(key)} straight, {after.get(key)} through the sidecar")
    if one.body != other.body:
        found.append(f"body: {_apart(one.body, other.body)}")
    return found


def _headers(exchange):
    grouped = {}
    for key, value in exchange.headers:
        if key.lower() in IGNORED or (exchange.status == 304 and key.lower() not in OF_304):
            continue
        grouped.setdefault(key.lower(), []).append(value)
    return grouped


def _with_renewals(before, after, other, payload_of):
    """Adds the cookies that a hit need not set: those with the payload that the client has."""
    absent = [text for text in before.get("set-cookie", []) if text not in
              after.get("set-cookie", [])]
    if other.cache == "HIT" and absent and all(_is_renewal(text, other, payload_of)
                                                for text in absent):
        return after | {"set-cookie": before["set-cookie"]}
    return after


def _is_renewal(set_cookie, other, payload_of):
    name, _, value = set_cookie.split(";")[0].partition("=")
    if name not in payload_of or name not in other.sent_cookies:
        return False
    return payload_of[name](value) == payload_of[name](other.sent_cookies[name])


def _apart(one, other):
    at = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b),
              min(len(one), len(other)))
    begin = max(0, at - 30)
    return f"from byte {at}: {one[begin:at + 40]!r} straight, {other[begin:at + 40]!r} through"
