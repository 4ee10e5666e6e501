"""Laravel as Debian packages it, on php-fpm and SQLite: an API, guests' pages, and a session."""

import pathlib
import re
import urllib.parse

import php_site
from harness.processes import environment
from site_under_test import HOST, SITE, field

NAME = "laravel"
FILES = pathlib.Path("/usr/share/php/Illuminate")
PACKAGES = ["php-laravel-framework", "php-sqlite3", "php-mbstring", "php-xml", *php_site.PACKAGES]
OURS = pathlib.Path(__file__).resolve().parent / "sites" / "laravel"


def version():
    text = (FILES / "Foundation" / "Application.php").read_text()
    number = re.search(r"const VERSION = '(.+?)';", text)[1]
    return f"Laravel {number}, PHP {php_site.version()}"


def start(processes, folder):
    site = folder / "site"
    for name in ("bootstrap/cache", "storage/views", "storage/sessions", "public"):
        (site / name).mkdir(parents=True)
    (site / "public" / "index.php").symlink_to(OURS / "index.php")
    (site / "catalog.db").touch()
    env = environment(SITE_FOLDER=site, SITE_CODE=OURS, SITE_URL=SITE)
    php_site.php(env | {"HTTP_HOST": HOST}, OURS / "setup.php")
    return php_site.start(processes, folder, site / "public", env)


def check(site):
    guests(site)
    tokens(site)
    ann, ben = sessions(site)
    edits(site, ann)
    log_out(site, ann, ben)


def guests(site):
    guest, other = site.visitor(), site.visitor(profile="firefox", analytics=True)
    for page in ("/api/catalog", "/api/catalog/1", "/catalog"):
        site.same(f"a guest's {page}", guest, page)
        site.hit(f"{page} again", guest.get(page))
        site.hit(f"{page} of another browser, with _ga", other.get(page))
        site.hit(f"{page}, and _ga has changed", other.get(page))
    found = guest.get("/api/catalog/99")
    site.check("a 404", found.status == 404, found.why)
    for what in ("first", "second"):
        page = guest.get("/catalog/mine")
        site.check(f"the {what} page of the group web is not stored", page.cache != "HIT", page.why)
        site.check(f"the {what} page sets both cookies", len(page.all("set-cookie")) == 2, page.why)


def tokens(site):
    """Callers of the API with a token."""
    site.warm(site.visitor(), "/api/catalog", "/catalog")
    refused = site.visitor(profile="program").get("/api/catalog/of/me")
    site.check("the API refuses a guest", refused.status == 401, refused.why)
    for name in ("ann", "ben"):
        bearer = {"Authorization": f"Bearer token-of-{name}"}
        program = site.visitor(profile="program", headers=bearer)
        for what in ("first", "second"):
            found = program.get("/api/catalog/of/me")
            site.check(f"{name}'s {what} answer is theirs", found.json() == {"of": name}, found.why)
        site.hit(f"{name}'s second answer", found)
    refused = site.visitor(profile="program").get("/api/catalog/of/me")
    site.check("the API still refuses a guest", refused.status == 401, refused.why)
    refused = site.visitor(profile="program").post("/api/catalog", {"name": "Spam"})
    site.check("a guest writes nothing", refused.status == 401, refused.why)
    site.hit("and purges nothing", site.visitor().get("/api/catalog"))

    program = site.visitor(profile="program", headers={"Authorization": "Bearer token-of-ann"})
    made = program.send("POST", "/api/catalog", json_body={"name": "Shelf"})
    site.check("a POST makes an item", made.status == 201, made.why)
    sees(site, "a POST", "Shelf")
    saved = program.send("PUT", "/api/catalog/1", json_body={"name": "Armchair"})
    site.check("a PUT changes it", saved.status == 200, saved.why)
    sees(site, "a PUT", "Armchair", pages=("/api/catalog", "/api/catalog/1", "/catalog"))
    gone = program.send("DELETE", "/api/catalog/2")
    site.check("a DELETE removes it", gone.status == 200, gone.why)
    sees(site, "a DELETE", "Table", is_there=False)


def sees(site, what, text, is_there=True, pages=("/api/catalog", "/catalog")):
    for page in pages:
        found = site.visitor().get(page)
        site.check(f"{what}: seen by the next read of {page}", (text in found.text) == is_there,
                   found.why)
        site.hit(f"{what}: and {page} is stored again", site.visitor(analytics=True).get(page))


def log_in(site, name):
    browser = site.visitor(analytics=True)
    sent = {"_token": field(browser.get("/login"), "_token"), "name": name, "remember": "1"}
    done = browser.post("/login", sent | {"password": "no"})
    site.check(f"{name}: a wrong password is refused", done.status == 422, done.why)
    done = browser.post("/login", sent | {"password": f"{name}-secret"})
    site.check(f"{name}: is logged in", done.status == 302, done.why)
    site.check(f"{name}: is remembered", browser.cookie("remember_web_"), done.headers)
    return browser


def sessions(site):
    forged = site.visitor().post("/login", {"name": "ann", "password": "ann-secret"})
    site.check("a form without its token is refused", forged.status == 419, forged.why)
    ann, ben = log_in(site, "ann"), log_in(site, "ben")
    for name, browser in (("ann", ann), ("ben", ben)):
        page = browser.get("/catalog/mine")
        site.check(f"{name} is welcome", "Welcome." in page.text, page.why)
        for what in ("second", "third"):
            page = browser.get("/catalog/mine")
            site.check(f"{name}'s {what} page is theirs", _user(page) == name, page.why)
            site.check(f"{name} is welcome once", "Welcome" not in page.text, page.why)
        page = site.visitor(analytics=True).get("/catalog/mine")
        site.check("a guest's page is a guest's", _user(page) == "guest", page.why)
        browser.get("/catalog")
        site.check(f"{name} reads the catalog", "Armchair" in browser.get("/catalog").text)
    return ann, ben


def _user(page):
    found = re.search(r'<p class="user">(\w+)</p>', page.text)
    return found and found[1]


def edits(site, ann):
    site.warm(site.visitor(), "/api/catalog", "/catalog")
    form = ann.get("/catalog/3/edit")
    sent = {"_method": "PUT", "_token": field(form, "_token"), "name": "Lantern"}
    no = site.visitor().post("/catalog/3", sent)
    site.check("the token of another session is refused", no.status == 419, no.why)
    site.hit("a refused form purges nothing", site.visitor().get("/catalog"))
    done = ann.post("/catalog/3", sent)
    site.check("a form with @method('PUT') is taken", done.status == 302, done.why)
    sees(site, "a form", "Lantern")
    page = ann.get("/catalog/mine")
    site.check("its message is shown", "Saved." in page.text and "Lantern" in page.text, page.why)
    page = ann.get("/catalog/mine")
    site.check("once", "Saved." not in page.text, page.why)

    site.warm(site.visitor(), "/api/catalog", "/catalog")
    token = urllib.parse.unquote(ann.cookie("XSRF-TOKEN"))
    done = ann.send("PUT", "/catalog/3", json_body={"name": "Torch"},
                    headers={"X-XSRF-TOKEN": token, "X-Requested-With": "XMLHttpRequest"})
    site.check("Axios writes with the cookie's token", done.status == 302, done.why)
    sees(site, "Axios", "Torch")


def log_out(site, ann, ben):
    for name, browser in (("ann", ann), ("ben", ben)):
        before = browser.get("/catalog/mine")
        done = browser.post("/logout", {"_token": field(before, "csrf-token")})
        site.check(f"{name} is logged out", done.status == 302, done.why)
        page = browser.get("/catalog/mine")
        site.check(f"{name} is a guest now", _user(page) == "guest", page.why)
