"""Campaigns: a Flask app with an API for programs, and a desk for people with a rolling session.

Its team had a cache in the app: a dictionary keyed by the first 20 characters of the token and the
path, emptied by each write. Each worker process had its own, so that a write left the others stale,
and the desk had none, since Flask signs its session anew with each response. `proxy.toml` replaces
it. `APP_CLOCK` is a file with the time, so that a day can be repeated.
"""

import datetime
import os
import pathlib
import time

import flask
import itsdangerous
import waitress
from flask.sessions import SecureCookieSessionInterface

QUERY_SECONDS = 0.01
CLOCK = pathlib.Path(os.environ["APP_CLOCK"])

# The first 20 characters of a token are the account; the rest is one of its devices.
ACCOUNTS = {"acme-7d1f0c55e9b24a6": "acme", "globex-91c4aa7e03d8f": "globex"}
USERS = {"ann": "acme", "ben": "acme", "cleo": "globex", "dora": "globex"}


def now():
    return int(CLOCK.read_text())


class Sessions(SecureCookieSessionInterface):
    """Flask's own sessions, by the given clock."""

    def get_expiration_time(self, app, session):
        began = datetime.datetime.fromtimestamp(now(), datetime.timezone.utc)
        return began + app.permanent_session_lifetime


itsdangerous.TimestampSigner.get_timestamp = lambda _: now()

app = flask.Flask(__name__)
app.secret_key = os.environ["FLASK_SECRET"]
app.session_interface = Sessions()
# What makes the session roll: it is permanent, and renewed by each response.
app.config["SESSION_REFRESH_EACH_REQUEST"] = True


class Database:
    """What takes its time in a legacy app."""

    def __init__(self):
        self.campaigns = {
            account: {
                number: {"id": number, "name": f"{account} {season}", "budget": 500 * number}
                for number, season in enumerate(("spring", "summer", "autumn", "winter"), 1)
            }
            for account in ("acme", "globex")
        }
        self.notes = {user: [f"call the printer of {account}"] for user, account in USERS.items()}

    def query(self, table):
        time.sleep(QUERY_SECONDS)
        return table


database = Database()


def account():
    scheme, _, token = flask.request.headers.get("Authorization", "").partition(" ")
    found = ACCOUNTS.get(token[:20])
    if scheme != "Bearer" or found is None or not token[20:].startswith("."):
        flask.abort(401)
    return found


@app.get("/api/campaigns")
def list_campaigns():
    rows = list(database.query(database.campaigns)[account()].values())
    least = flask.request.args.get("budget_from", 0, int)
    return {"campaigns": [row for row in rows if row["budget"] >= least]}


@app.get("/api/campaigns/<int:number>")
def one_campaign(number):
    found = database.query(database.campaigns)[account()].get(number)
    return found or flask.abort(404)


@app.get("/api/reports/<kind>")
def report(kind):
    rows = database.query(database.campaigns)[account()].values()
    return {"report": kind, "account": account(), "total": sum(row["budget"] for row in rows)}


@app.put("/api/campaigns/<int:number>")
def change_campaign(number):
    rows = database.campaigns[account()]
    if number not in rows:
        flask.abort(404)
    sent = flask.request.json
    rows[number] |= {key: sent[key] for key in ("name", "budget") if key in sent}
    return rows[number]


@app.post("/api/campaigns")
def add_campaign():
    rows = database.campaigns[account()]
    number = max(rows) + 1
    rows[number] = {"id": number, "name": flask.request.json["name"], "budget": 0}
    return rows[number], 201, {"Location": f"/api/campaigns/{number}"}


PAGE = """<!doctype html><title>{{ title }}</title>
<nav>{{ user }} of {{ account }} · <a href="/desk">desk</a>
<a href="/desk/reports">reports</a></nav>
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>
{% endfor %}<h1>{{ title }}</h1>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
"""


def user():
    if "user" not in flask.session:
        flask.abort(flask.redirect("/login"))
    return flask.session["user"]


def page(title, lines):
    who = {"user": user(), "account": USERS[user()]}
    return flask.render_template_string(PAGE, title=title, lines=lines, **who)


@app.get("/login")
def login_form():
    return '<!doctype html><form method="post"><input name="user"><input name="password"></form>\n'


@app.post("/login")
def login():
    name = flask.request.form["user"]
    if name not in USERS or flask.request.form["password"] != f"{name}-secret":
        return "wrong user or password\n", 403
    flask.session.permanent = True
    flask.session["user"] = name
    flask.flash(f"Welcome, {name}")
    return flask.redirect("/desk", 303)


@app.post("/logout")
def logout():
    flask.session.clear()
    return flask.redirect("/login", 303)


@app.get("/desk")
def desk():
    return page("Desk", database.query(database.notes)[user()])


@app.get("/desk/reports")
def reports():
    notes = database.query(database.notes)[user()]
    return page("Reports", [f"{len(notes)} notes", f"{sum(map(len, notes))} letters"])


@app.get("/desk/notes/<int:at>")
def note(at):
    notes = database.query(database.notes)[user()]
    if at >= len(notes):
        flask.abort(404)
    return page(f"Note {at}", [notes[at]])


@app.post("/desk/notes")
def add_note():
    database.notes[user()].append(flask.request.form["text"])
    flask.flash("Your note is on the desk")
    return flask.redirect("/desk", 303)


if __name__ == "__main__":
    server = waitress.create_server(app, host="127.0.0.1", port=int(os.environ.get("PORT", 0)))
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()
