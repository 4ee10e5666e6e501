"""Portal: the intranet of a factory, on Bottle and waitress, as it runs on a Windows server.

People log in once and carry `PORTALSESSID`; what they see depends on their department. Staff and
prices come from other systems: `sync.py` writes them into the same SQLite file, and tells nobody.
Its team had a cache of whole pages in a table, which the job was to delete, and often did not.
"""

import hashlib
import html
import os
import pathlib
import sqlite3
import time

import bottle
import waitress

QUERY_SECONDS = 0.01
DATA = pathlib.Path(os.environ.get("APP_DATA", "."))
CLOCK = pathlib.Path(os.environ["APP_CLOCK"])
DATABASE = DATA / "portal.sqlite"
FILES = pathlib.Path(__file__).parent / "files"
USERS = {"ada": "sales", "bob": "sales", "eve": "works"}

app = bottle.Bottle()
sessions = {}


def prepare():
    DATABASE.unlink(missing_ok=True)
    with sqlite3.connect(DATABASE) as connection:
        connection.executescript(
            """
            CREATE TABLE people (name TEXT PRIMARY KEY, department TEXT, phone TEXT);
            CREATE TABLE prices (article TEXT PRIMARY KEY, cents INTEGER);
            CREATE TABLE news (id INTEGER PRIMARY KEY, department TEXT, title TEXT);
            INSERT INTO people VALUES ('Ada', 'sales', '11'), ('Bob', 'sales', '12'),
                ('Eve', 'works', '21'), ('Sam', 'works', '22');
            INSERT INTO prices VALUES ('bolt', 120), ('nut', 80), ('washer', 15);
            INSERT INTO news VALUES (1, 'sales', 'New brochures'), (2, 'works', 'Gate 4 is shut'),
                (3, 'all', 'Canteen: fish');
            """
        )


def query(text, *values):
    time.sleep(QUERY_SECONDS)
    connection = sqlite3.connect(DATABASE)
    try:
        return connection.execute(text, values).fetchall()
    finally:
        connection.close()


def write(text, *values):
    connection = sqlite3.connect(DATABASE)
    with connection:
        connection.execute(text, values)
    connection.close()


def department():
    found = sessions.get(bottle.request.get_cookie("PORTALSESSID"))
    if found is None:
        bottle.redirect("/login", 302)
    return USERS[found]


def page(title, rows):
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    table = "".join(f"<tr>{row}</tr>\n" for row in cells)
    bottle.response.content_type = "text/html; charset=utf-8"
    # The frameworks of its time said this of every page.
    bottle.response.set_header("Cache-Control", "no-cache")
    return f"<!doctype html><title>{html.escape(title)}</title>\n<table>\n{table}</table>\n"


@app.get("/login")
def login_form():
    return '<!doctype html><form method="post"><input name="user"></form>\n'


@app.post("/login")
def login():
    user = bottle.request.forms.get("user")
    if user not in USERS:
        bottle.abort(403, "Who are you?")
    text = f"{user} {CLOCK.read_text()} {len(sessions)}"
    session = hashlib.sha256(text.encode()).hexdigest()[:26]
    sessions[session] = user
    bottle.response.set_cookie("PORTALSESSID", session, path="/", httponly=True)
    bottle.redirect("/", 303)


@app.get("/")
def start():
    mine = department()
    rows = query("SELECT id, title FROM news WHERE department IN (?, 'all')", mine)
    return page(f"Portal of {mine}", rows)


@app.get("/news/<number:int>")
def news(number):
    mine = department()
    rows = query("SELECT title FROM news WHERE id = ? AND department IN (?, 'all')", number, mine)
    return page(rows[0][0], rows) if rows else bottle.abort(404, "No such news")


@app.post("/news")
def add_news():
    mine = department()
    title = bottle.request.forms.get("title")
    write("INSERT INTO news (department, title) VALUES (?, ?)", mine, title)
    bottle.redirect("/", 303)


@app.get("/people")
def people():
    department()
    wanted = bottle.request.query.get("department", "%")
    order = "phone" if bottle.request.query.get("sort") == "phone" else "name"
    text = f"SELECT * FROM people WHERE department LIKE ? ORDER BY {order}"
    return page("People", query(text, wanted))


@app.get("/prices")
def prices():
    department()
    return page("Prices", query("SELECT article, cents FROM prices ORDER BY article"))


@app.get("/files/<name>")
def files(name):
    return bottle.static_file(name, root=str(FILES))


if __name__ == "__main__":
    prepare()
    server = waitress.create_server(app, host="127.0.0.1", port=int(os.environ.get("PORT", 0)))
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()
