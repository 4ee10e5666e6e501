"""Rails as Debian packages it, on Puma and SQLite: guests, two users, forms with tokens."""

import pathlib
import re
import subprocess

from harness.processes import environment
from site_under_test import field

NAME = "rails"
PACKAGES = ["ruby-rails", "puma", "ruby-sqlite3"]
OURS = pathlib.Path(__file__).resolve().parent / "sites" / "rails"


def version():
    script = ('require "rails/version"; '
              'print "Rails #{Rails::VERSION::STRING}, Ruby #{RUBY_VERSION}"')
    return subprocess.run(["ruby", "-e", script], capture_output=True, text=True, check=True).stdout


def start(processes, folder):
    env = environment(RAILS_ENV="production", RACK_ENV="production",
                      DATABASE_URL=f"sqlite3:{folder / 'shop.db'}")
    command = ["puma", "-e", "production", "-t", "2:2", "-b", "tcp://127.0.0.1:0",
               OURS / "config.ru"]
    return int(processes.start("rails", command, env, r"Listening on http://127\.0\.0\.1:(\d+)")[1])


def check(site):
    guests(site)
    ann, ben = users(site)
    edits(site, ann, ben)
    log_out(site, ann, ben)


def guests(site):
    guest, other = site.visitor(), site.visitor(profile="firefox", analytics=True)
    for page in ("/products", "/products/1", "/products.json"):
        site.same(f"a guest's {page}", guest, page)
        site.hit(f"{page} again", guest.get(page))
        other.get(page)
        site.hit(f"{page} of another browser, with _ga", other.get(page))
        site.hit(f"{page}, and _ga has changed", other.get(page))
    etag = guest.get("/products").header("etag")
    again = guest.get("/products", headers={"If-None-Match": etag})
    site.check("a 304 by Rails' ETag", again.status == 304 and again.cache == "HIT", again.why)
    for what, headers in (("Turbo-Frame", {"Turbo-Frame": "list"}),
                          ("an AJAX request", {"X-Requested-With": "XMLHttpRequest"})):
        for _ in range(2):
            found = guest.get("/products", headers=headers)
            site.check(f"{what} is answered", found.status == 200 and "Chair" in found.text,
                       found.why)
    site.same("the same path as JSON", site.visitor(profile="program"), "/products")
    for what, accept in (("jQuery", "application/json, text/javascript, */*; q=0.01"),
                         ("Axios", "application/json, text/plain, */*")):
        ajax = {"Accept": accept, "X-Requested-With": "XMLHttpRequest"}
        page = site.same(f"{what} asks", guest, "/products", headers=ajax)
        site.check(f"{what} gets JSON", page.text.startswith("["), page.why)
        site.same(f"a script asks as {what} and does not say so", guest, "/products",
                  headers={"Accept": accept})
    page = guest.get("/products")
    site.check("a browser gets no JSON", page.text.startswith("<!DOCTYPE"), page.why)
    form = guest.get("/products/new")
    site.check("a guest is sent to the login", form.status == 302, form.why)
    form = guest.get("/products/99")
    site.check("a 404", form.status == 404, form.why)


def log_in(site, name):
    browser = site.visitor(analytics=True)
    token = field(browser.get("/session/new"), "authenticity_token")
    done = browser.post("/session", {"name": name, "password": "no", "authenticity_token": token})
    site.check(f"{name}: a wrong password is refused", done.status == 422, done.why)
    sent = {"name": name, "password": f"{name}-secret", "authenticity_token": token}
    done = browser.post("/session", sent)
    site.check(f"{name}: is logged in", done.status == 302, done.why)
    return browser


def users(site):
    site.warm(site.visitor(), "/products", "/products/1")
    forged = site.visitor().post("/session", {"name": "ann", "password": "ann-secret"})
    site.check("a form without its token is refused", forged.status == 422, forged.why)
    ann, ben = log_in(site, "ann"), log_in(site, "ben")
    for name, browser in (("ann", ann), ("ben", ben)):
        page = browser.get("/products")
        site.check(f"{name} is welcome", f"Welcome, {name}." in page.text, page.why)
        for what in ("second", "third"):
            page = browser.get("/products")
            site.check(f"{name}'s {what} page is theirs", _user(page) == name, page.why)
            site.check(f"{name} is welcome once", "Welcome" not in page.text, page.why)
        page = site.visitor(analytics=True).get("/products")
        site.check("a guest's page is a guest's", _user(page) == "guest", page.why)
    for name, browser in (("ann", ann), ("ben", ben)):
        browser.get("/products/prices")
        page = browser.get("/products/prices")
        site.hit(f"{name}'s page that skips the session", page)
        site.check(f"{name}'s prices are theirs", _user(page) == name, page.why)
    page = site.visitor().get("/products/prices")
    site.check("a guest's prices are a guest's", _user(page) == "guest", page.why)
    tokens(site)
    return ann, ben


def check_more(site):
    """Users of one account share what the app says is theirs; their sessions are encrypted."""
    ann, amy, ben = (log_in(site, name) for name in ("ann", "amy", "ben"))
    site.check("a guest gets no report", site.visitor().get("/reports").status == 401)
    for name, browser, account in (("ann", ann, "acme"), ("ben", ben, "globex")):
        for what in ("first", "second"):
            found = browser.get("/reports")
            site.check(f"{name}'s {what} report is of {account}",
                       found.json()["account"] == account, found.why)
        site.hit(f"{name}'s second report", found)
    amy.get("/reports?of=today")
    found = amy.get("/reports")
    site.hit("once the app has answered amy, she has the report of ann's account", found)
    site.check("it is of that account", found.json()["account"] == "acme", found.why)
    ann.get("/products")
    ann.get("/reports?of=today")
    site.hit("after a cookie that is encrypted anew, too", ann.get("/reports"))

    token = field(ann.get("/products"), "csrf-token")
    sent = {"_method": "patch", "product[name]": "Stool", "authenticity_token": token}
    done = ann.post("/products/1", sent)
    site.check("a write", done.status == 302, done.why)
    for name, browser in (("ann", ann), ("amy", amy), ("ben", ben)):
        found = browser.get("/reports")
        site.check(f"{name} sees it", found.json()["first"] == "Stool", found.why)

    # One browser, another user: the session is begun anew.
    token = field(ann.get("/products"), "csrf-token")
    ann.post("/session", {"_method": "delete", "authenticity_token": token})
    gone = ann.get("/reports")
    site.check("who has logged out gets no report", gone.status == 401, gone.why)
    token = field(ann.get("/session/new"), "authenticity_token")
    done = ann.post("/session", {"name": "ben", "password": "ben-secret",
                                 "authenticity_token": token})
    found = ann.get("/reports")
    site.check("who logs in as another gets the other's", found.status == 200 and
               found.json()["account"] == "globex", found.why)


def tokens(site):
    """With the layout of `rails new` each guest has a session, and a token that it takes."""
    seen = set()
    for _ in range(3):
        guest = site.visitor()
        token = field(guest.get("/products/plain"), "csrf-token")
        seen.add(token)
        done = guest.post("/session", {"name": "ann", "password": "ann-secret",
                                       "authenticity_token": token})
        site.check("a guest's token is taken", done.status == 302, done.why)
    site.check("each guest has another token", len(seen) == 3, seen)


def _user(page):
    found = re.search(r'<p class="user">(\w+)</p>', page.text)
    return found and found[1]


def sees(site, what, text, is_there=True, pages=("/products", "/products.json")):
    for page in pages:
        found = site.visitor().get(page)
        site.check(f"{what}: seen by the next read of {page}", (text in found.text) == is_there,
                   found.why)


def edits(site, ann, ben):
    def warm():
        site.warm(site.visitor(), "/products", "/products.json", "/products/1")

    warm()
    form = ann.get("/products/1/edit")
    sent = {"_method": "patch", "authenticity_token": field(form, "authenticity_token"),
            "product[name]": "Armchair", "product[price]": "20"}
    no = ben.post("/products/1", sent)
    site.check("the token of another session is refused", no.status == 422, no.why)
    site.hit("a refused write purges nothing", site.visitor().get("/products"))
    done = ann.post("/products/1", sent)
    site.check("a form with _method=patch is taken", done.status == 302, done.why)
    sees(site, "a patch", "Armchair", pages=("/products", "/products.json", "/products/1"))
    page = ann.get("/products")
    site.check("its message is shown", "Saved." in page.text and "Armchair" in page.text, page.why)
    page = ann.get("/products")
    site.check("once", "Saved." not in page.text and "Armchair" in page.text, page.why)
    page = ben.get("/products")
    site.check("another user sees the edit", "Armchair" in page.text and _user(page) == "ben",
               page.why)

    warm()
    form = ben.get("/products/new")
    done = ben.post("/products", {"authenticity_token": field(form, "authenticity_token"),
                                  "product[name]": "Shelf", "product[price]": "5"})
    site.check("a form makes a product", done.status == 302, done.why)
    sees(site, "a new product", "Shelf")

    warm()
    token = field(ann.get("/products"), "csrf-token")
    done = ann.send("DELETE", "/products/2", headers={"X-CSRF-Token": token})
    site.check("a DELETE with the token of the layout", done.status == 302, done.why)
    sees(site, "a DELETE", "Table", is_there=False)


def log_out(site, ann, ben):
    for name, browser in (("ann", ann), ("ben", ben)):
        before = browser.get("/products")
        sent = {"_method": "delete", "authenticity_token": field(before, "csrf-token")}
        done = browser.post("/session", sent)
        site.check(f"{name} is logged out", done.status == 302, done.why)
        page = browser.get("/products")
        site.check(f"{name} is a guest now", _user(page) == "guest", page.why)
