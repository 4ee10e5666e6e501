"""Makes the vectors of signed session cookies with the frameworks themselves.

    python -m venv v && v/bin/pip install flask==3.1.3 django==5.2.19 && npm install cookie-session@2
    v/bin/python tests/sessions/make.py > tests/sessions/vectors.json

Run it in a folder that has the node module. Times are fixed, so that the result is the same.
"""

import datetime
import json
import os
import subprocess
import sys
import time
import uuid
import zlib

from django.conf import settings
from django.core import signing
from flask import Flask
from itsdangerous import URLSafeTimedSerializer

NOW = 1_780_000_000
SECRET, OLD, OTHER = "a-secret-of-the-app", "the-secret-before", "another-app"
DJANGO_SALT = "django.contrib.sessions.backends.signed_cookies"
HERE = os.path.dirname(os.path.abspath(__file__))

vectors = []
settings.configure(SECRET_KEY=SECRET)


def add(name, form, cookie, expect, **more):
    vectors.append({"name": name, "format": form, "cookie": cookie, "expect": expect, **more})


def at(seconds, make):
    real = time.time
    time.time = lambda: float(seconds)
    try:
        return make()
    finally:
        time.time = real


def flask(payload, secret=SECRET, fallbacks=None, seconds=NOW, change=None):
    app = Flask("app")
    app.secret_key = secret
    app.config["SECRET_KEY_FALLBACKS"] = fallbacks
    signer = app.session_interface.get_signing_serializer(app)
    if change:
        change(signer)
    return at(seconds, lambda: signer.dumps(payload))


login = {
    "_fresh": True,
    "_id": "0f" * 64,
    "_user_id": "42",
    "csrf_token": "5c6f1e0d3b2a49788796a5b4c3d2e1f00f1e2d3c",
}
flash = {**login, "_flashes": [("message", "Saved"), ("error", "Not\u00e9")]}
tagged = {
    "_user_id": uuid.UUID(int=7),
    "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    "raw": b"\x00\xff",
    "odd": {" t": 1},
    "n": 1.5,
    "none": None,
}
long = {**login, "cart": [{"sku": f"item-{n}", "count": 1} for n in range(60)]}

add("flask, small", "flask", flask({"_user_id": "42"}), "ok", payload={"_user_id": "42"})
add("flask, login", "flask", flask(login), "ok", payload=login)
add("flask, signed anew", "flask", flask(login, seconds=NOW + 5), "ok", payload=login)
add("flask, flash", "flask", flask(flash), "ok")
add("flask, tagged", "flask", flask(tagged), "ok")
add("flask, zlib", "flask", flask(long), "ok", payload=long)
add("flask, old key", "flask", flask(login, OLD), "ok", payload=login)
add("flask, new key of several", "flask", flask(login, SECRET, [OLD]), "ok", payload=login)
add("flask, another secret", "flask", flask(login, OTHER), "bad signature")
add("flask, expired", "flask", flask(login, seconds=NOW - 8 * 86400), "expired")
add("flask, from the future", "flask", flask(login, seconds=NOW + 600), "signed in the future")
other = URLSafeTimedSerializer(
    SECRET, salt="remember-me", signer_kwargs={"key_derivation": "hmac"}
)
add("flask, another salt", "flask", at(NOW, lambda: other.dumps(login)), "bad signature")
plain = URLSafeTimedSerializer(SECRET, salt="cookie-session")
add("flask, another derivation", "flask", at(NOW, lambda: plain.dumps(login)), "bad signature")


def raw_flask(data):
    """Signs these bytes, as an app with that secret could."""
    app = Flask("app")
    app.secret_key = SECRET
    signer = app.session_interface.get_signing_serializer(app).make_signer("cookie-session")
    return at(NOW, lambda: signer.sign(data).decode())


def b64(data):
    return signing.b64_encode(data)


bomb = b"." + b64(zlib.compress(b'{"a":"' + b"a" * 3_000_000 + b'"}', 9))
add("flask, zlib bomb", "flask", raw_flask(bomb), "payload too large")
deep = b64(b'{"a":' * 200 + b"1" + b"}" * 200)
add("flask, deep", "flask", raw_flask(deep), "payload too deep")
add("flask, no JSON", "flask", raw_flask(b64(b"{'a': 1}")), "payload is not JSON")
add("flask, repeated", "flask", raw_flask(b64(b'{"a":1,"a":2}')), "payload repeats a member")
add("flask, broken zlib", "flask", raw_flask(b"." + b64(b"not zlib")), "payload is not readable")


def django(payload, secret=SECRET, seconds=NOW, salt=DJANGO_SALT, compress=True):
    return at(
        seconds, lambda: signing.dumps(payload, key=secret, salt=salt, compress=compress)
    )



user = {
    "_auth_user_id": "7",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "9a" * 32,
}
add("django, login", "django", django(user), "ok", payload=user)
add("django, plain", "django", django(user, compress=False), "ok", payload=user)
add("django, signed anew", "django", django(user, seconds=NOW + 61), "signed in the future")
add("django, older", "django", django(user, seconds=NOW - 3600), "ok", payload=user)
add("django, old key", "django", django(user, OLD), "ok", payload=user)
add("django, another secret", "django", django(user, OTHER), "bad signature")
add("django, another salt", "django", django(user, salt="django.core.signing"), "bad signature")
add("django, expired", "django", django(user, seconds=NOW - 8 * 86400), "expired")
add("django, flask's cookie", "django", flask(login), "not a signed cookie")
add("flask, django's cookie", "flask", django(user, compress=False), "not a signed cookie")

made = subprocess.run(
    ["node", os.path.join(HERE, "make.mjs")], capture_output=True, text=True, check=True
)
vectors.extend(json.loads(made.stdout))

out = {"now": NOW, "secrets": [SECRET, OLD], "max_age_seconds": 7 * 86400, "vectors": vectors}
json.dump(out, sys.stdout, indent=1)
print()
