"""Valuation: a Flask service in Compose that says what a home is worth.

Its callers are other services, known by `X-Api-Key`. What it is asked most is a POST that changes
nothing: its question does not fit into a URL. Its team kept the answers in a dictionary, by the
hash of the body, and forgot to empty it after the nightly import of prices.
"""

import os
import time

import flask
import waitress

QUERY_SECONDS = 0.01
MODEL_SECONDS = 0.02
KEYS = {"key-of-the-bank-0001": "bank", "key-of-the-broker-02": "broker"}
# What the partners pay on top of a valuation differs, so answers differ by caller.
FEES = {"bank": 90, "broker": 140}

app = flask.Flask(__name__)


class Prices:
    """What a square metre costs, by area, and the homes that are known."""

    def __init__(self):
        self.version = 1
        self.by_area = {"north": 3100, "east": 2700, "south": 4200, "west": 3600}
        self.homes = {
            number: {"id": number, "area": area, "size": 40 + 7 * number, "rooms": 2 + number % 3}
            for number, area in enumerate(["north", "east", "south", "west"] * 3, 1)
        }

    def query(self, table):
        time.sleep(QUERY_SECONDS)
        return table


prices = Prices()


def caller():
    found = KEYS.get(flask.request.headers.get("X-Api-Key"))
    if found is None:
        flask.abort(401)
    return found


@app.get("/api/areas")
def areas():
    caller()
    rows = prices.query(prices.by_area)
    listed = [{"area": area, "price": price} for area, price in rows.items()]
    return {"version": prices.version, "areas": listed}


@app.get("/api/areas/<area>/prices")
def area(area):
    caller()
    price = prices.query(prices.by_area).get(area) or flask.abort(404)
    years = range(5)
    return {"area": area, "prices": [round(price * 0.97**year) for year in years]}


@app.get("/api/homes")
def homes():
    caller()
    wanted = flask.request.args.get("area")
    rows = prices.query(prices.homes).values()
    return {"homes": [home for home in rows if wanted in (None, home["area"])]}


@app.get("/api/homes/<int:number>")
def home(number):
    who = caller()
    found = prices.query(prices.homes).get(number) or flask.abort(404)
    return found | {"value": found["size"] * prices.by_area[found["area"]], "fee": FEES[who]}


@app.patch("/api/homes/<int:number>")
def change_home(number):
    caller()
    found = prices.homes.get(number) or flask.abort(404)
    found |= {key: value for key, value in flask.request.json.items() if key in ("size", "rooms")}
    return found


@app.post("/api/prices/import")
def import_prices():
    """What a nightly job sends."""
    if caller() != "bank":
        flask.abort(403)
    prices.by_area |= flask.request.json
    prices.version += 1
    return {"version": prices.version}


@app.post("/api/valuations")
def valuation():
    """A read: the same question has the same answer until the next import."""
    who = caller()
    asked = flask.request.json
    price = prices.by_area.get(asked.get("area")) or flask.abort(422)
    time.sleep(MODEL_SECONDS)
    value = round(asked["size"] * price * (1 + 0.02 * asked.get("rooms", 1)))
    return {"value": value, "fee": FEES[who], "version": prices.version}


if __name__ == "__main__":
    address = {"host": os.environ.get("HOST", "127.0.0.1"), "port": int(os.environ.get("PORT", 0))}
    server = waitress.create_server(app, **address)
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()
