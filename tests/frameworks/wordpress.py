"""WordPress as Debian packages it, with MariaDB: guests, comments, an editor, a reader."""

import html
import http.client
import os
import pathlib
import re
import subprocess
import threading
import urllib.parse

import php_site
from harness.processes import environment
from site_under_test import HOST, SITE, field

NAME = "wordpress"
PACKAGES = ["wordpress", "wordpress-theme-twentytwentythree", "php-mysql", "mariadb-server",
            *php_site.PACKAGES]
FILES = pathlib.Path("/usr/share/wordpress")
RACE_WRITES = 8
OURS = pathlib.Path(__file__).resolve().parent / "sites" / "wordpress"


def version():
    text = (FILES / "wp-includes" / "version.php").read_text()
    number = re.search(r"wp_version = '(.+?)';", text)[1]
    return f"WordPress {number}, PHP {php_site.version()}"


def start(processes, folder):
    """A database of its own, and WordPress in front of it; returns the port."""
    env = environment(SITE_FOLDER=folder / "site", SITE_SOCKET=folder / "db.sock", SITE_URL=SITE)
    _start_database(processes, folder, env)
    _link_site(folder / "site")
    port = php_site.start(processes, folder, folder / "site", env, OURS / "prepend.php")
    _install(port)
    php_site.php(env | {"HTTP_HOST": HOST}, "-d", f"auto_prepend_file={OURS / 'prepend.php'}",
                 OURS / "setup.php")
    return port


def _start_database(processes, folder, env):
    data = folder / "db"
    user = [] if os.getuid() else ["--user=root"]
    subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
                    "--auth-root-authentication-method=normal", *user], check=True, timeout=120,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    small = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
             "--innodb-flush-method=nosync", "--skip-log-bin", "--performance-schema=off"]
    processes.start("mariadb", ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={data}",
                                f"--socket={folder / 'db.sock'}", "--skip-networking", *small,
                                f"--pid-file={folder / 'db.pid'}", *user], env,
                    r"ready for connections")
    subprocess.run(["mariadb", "--no-defaults", f"--socket={folder / 'db.sock'}", "-u", "root",
                    "-e", "CREATE DATABASE wordpress CHARACTER SET utf8mb4"], check=True,
                   timeout=60, env=env)


def _link_site(site):
    """Debian's files by links, with settings and contents of this site alone."""
    (site / "wp-content" / "themes").mkdir(parents=True)
    for name, file in (("plugins", None), ("mu-plugins", "test-settings.php")):
        (site / "wp-content" / name).mkdir()
        if file:
            (site / "wp-content" / name / file).symlink_to(OURS / file)
    for file in FILES.iterdir():
        if file.name not in ("wp-config.php", "wp-content"):
            (site / file.name).symlink_to(file)
    for file in (FILES / "wp-content" / "themes").iterdir():
        (site / "wp-content" / "themes" / file.name).symlink_to(file)
    (site / "wp-config.php").symlink_to(OURS / "wp-config.php")


def _install(port):
    """What the page of the installer sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {"weblog_title": "A blog", "user_name": "editor", "admin_password": "editor-secret",
            "admin_password2": "editor-secret", "pw_weak": "1", "admin_email": "e@example.test",
            "blog_public": "1", "language": ""}
    connection.request("POST", "/wp-admin/install.php?step=2", urllib.parse.urlencode(sent),
                       {"Host": HOST, "Content-Type": "application/x-www-form-urlencoded"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200 or "Success" not in text:
        raise AssertionError(f"WordPress is not installed: {response.status}: {text[-500:]}")


PAGES = ["/", "/post-one/", "/about/", "/feed/", "/comments/feed/", "/wp-sitemap.xml",
         "/wp-json/wp/v2/posts", "/wp-json/wp/v2/comments", "/?s=text"]


def check(site):
    guests(site)
    reader, editor = users(site)
    comments(site)
    edits(site, editor)
    race(site, editor)
    protected(site)
    log_out(site, reader, editor)


def guests(site):
    guest, other = site.visitor(), site.visitor(profile="firefox", analytics=True)
    for page in PAGES:
        site.same(f"a guest's {page}", guest, page)
        site.hit(f"{page} again", guest.get(page))
        site.hit(f"{page} of another browser, with _ga", other.get(page))
        site.hit(f"{page}, and _ga has changed", other.get(page))
    site.hit("a link of a newsletter", other.get("/post-one/?utm_source=letter&gclid=7"))
    feed = guest.get("/feed/")
    again = guest.get("/feed/", headers={"If-None-Match": feed.header("etag") or "none",
                                         "If-Modified-Since": feed.header("last-modified") or ""})
    site.check("a feed reader's 304", again.status == 304 and again.cache == "HIT", again.why)
    page = site.same("a page that is not there", guest, "/not-there/")
    site.check("it is a 404", page.status == 404, page.why)
    static = "/wp-includes/css/dist/block-library/style.min.css"
    site.same("a file", guest, static)
    site.hit("a file", guest.get(static))
    head = guest.send("HEAD", "/post-one/")
    site.check("a HEAD", head.status == 200 and head.body == b"", head.why)


def log_in(site, name):
    """Logs in by the form, and returns the browser."""
    browser = site.visitor(analytics=True)
    form = browser.get("/wp-login.php")
    site.check(f"{name}: the form of the login sets its cookie",
               browser.cookie("wordpress_test_cookie") is not None, form.why)
    done = browser.post("/wp-login.php", {
        "log": name, "pwd": f"{name}-secret", "testcookie": "1", "wp-submit": "Log In",
        "redirect_to": SITE + "/wp-admin/"})
    site.check(f"{name}: is logged in", done.status == 302, done.why)
    site.check(f"{name}: has the cookie", browser.cookie("wordpress_logged_in_"), done.headers)
    return browser


def users(site):
    """Who is signed in has the bar, and nobody else."""
    site.warm(site.visitor(), "/", "/post-one/")
    wrong = site.visitor()
    wrong.get("/wp-login.php")
    no = wrong.post("/wp-login.php", {"log": "editor", "pwd": "no", "testcookie": "1"})
    site.check("a wrong password is refused", "Error" in no.text, no.why)
    site.hit("a refused login purges nothing", site.visitor().get("/"))
    reader, editor = log_in(site, "reader"), log_in(site, "editor")
    site.hit("a login purges nothing of the guests'", site.visitor().get("/"))
    for page in ("/", "/post-one/"):
        for name, browser in (("reader", reader), ("editor", editor)):
            for what in ("first", "second"):
                found = browser.get(page)
                site.check(f"{name}'s {what} {page} is theirs", _is_of(found, name), found.why)
        found = site.visitor(analytics=True).get(page)
        site.check(f"a guest's {page} is a guest's", _is_of(found, None), found.why)
        site.hit(f"a guest's {page}", found)
    wp_admin = site.visitor().get("/wp-admin/")
    site.check("a guest gets no /wp-admin/", wp_admin.status == 302, wp_admin.why)
    ours = editor.get("/wp-admin/")
    site.check("the editor does", ours.status == 200 and "Dashboard" in ours.text, ours.why)
    me = editor.get("/wp-json/wp/v2/users/me", headers={"X-WP-Nonce": rest_nonce(editor)})
    site.check("the API knows the editor", me.status == 200 and me.json()["id"] == 1, me.why)
    me = site.visitor().get("/wp-json/wp/v2/users/me")
    site.check("and no guest", me.status == 401, me.why)
    return reader, editor


def _is_of(response, name):
    bar = re.search(r'class="display-name">([^<]+)<', response.text)
    return response.status == 200 and (bar and bar[1]) == name


def rest_nonce(browser):
    return browser.get("/wp-admin/admin-ajax.php?action=rest-nonce").text


def sees(site, what, page, text, is_there=True):
    """The next read of a guest, of a page that was in the cache."""
    found = site.visitor().get(page)
    site.check(f"{what}: seen by the next read of {page}", (text in found.text) == is_there,
               found.why)
    again = site.visitor(analytics=True).get(page)
    site.hit(f"{what}: and {page} is stored again", again)


def comments(site):
    guest = site.visitor(analytics=True)
    site.warm(guest, *PAGES)
    page = guest.get("/post-one/")
    form = {"comment_post_ID": field(page, "comment_post_ID"), "comment_parent": "0",
            "author": "Guest", "email": "guest@example.test", "url": ""}
    done = guest.post("/wp-comments-post.php", form | {"comment": "A comment of a guest."})
    site.check("a guest's comment is taken", done.status == 302, done.why)
    for page in ("/post-one/", "/comments/feed/", "/wp-json/wp/v2/comments"):
        sees(site, "a guest's comment", page, "A comment of a guest.")
    site.warm(guest, *PAGES)
    known = site.visitor()
    done = known.post("/wp-comments-post.php", form | {
        "author": "Known", "comment": "A second one.", "wp-comment-cookies-consent": "yes"})
    site.check("who agrees is remembered", known.cookie("comment_author_"), done.why)
    sees(site, "a second comment", "/post-one/", "A second one.")
    for what in ("first", "second"):
        own = known.get("/post-one/")
        site.check(f"the form has the name of its reader, {what} time", 'value="Known"' in own.text,
                   own.why)
    page = site.visitor().get("/post-one/")
    site.check("and nobody else's has it", 'value="Known"' not in page.text, page.why)
    site.hit("a guest's page after it", page)


def edits(site, editor):
    """Each way in which the screens of /wp-admin/ change a page, with the page in the cache."""
    nonce = {"X-WP-Nonce": rest_nonce(editor)}
    posts = {one["slug"]: one["id"] for one in site.visitor().get("/wp-json/wp/v2/posts").json()}
    one, two, three = (posts[f"post-{name}"] for name in ("one", "two", "three"))

    def warm():
        for page in ("/", "/post-one/", "/post-two/", "/post-three/", "/feed/", "/comments/feed/",
                     "/wp-json/wp/v2/posts"):
            site.visitor().get(page)

    warm()
    done = editor.send("POST", f"/wp-json/wp/v2/posts/{one}?_locale=user", headers=nonce | {
        "X-HTTP-Method-Override": "PUT"}, json_body={"id": one, "title": "Saved by the editor"})
    site.check("the block editor saves", done.status == 200, done.why)
    for page in ("/", "/post-one/", "/feed/", "/wp-json/wp/v2/posts"):
        sees(site, "the block editor", page, "Saved by the editor")

    warm()
    table = editor.get("/wp-admin/edit.php")
    done = editor.post("/wp-admin/admin-ajax.php", {
        "action": "inline-save", "post_ID": two, "post_title": "Saved by quick edit",
        "post_name": "post-two", "_status": "publish", "post_type": "post", "screen": "edit-post",
        "_inline_edit": field(table, "_inline_edit"), "post_view": "list", "edit_date": "true",
        "mm": "11", "jj": "01", "aa": "2025", "hh": "10", "mn": "00", "post_author": "1"})
    site.check("quick edit saves", "Saved by quick edit" in done.text, done.why + done.text)
    for page in ("/", "/post-two/"):
        sees(site, "quick edit", page, "Saved by quick edit")

    warm()
    sent = urllib.parse.urlencode({"_method": "PUT", "title": "By a GET", "_wpnonce":
                                   nonce["X-WP-Nonce"]})
    done = editor.get(f"/wp-json/wp/v2/posts/{two}?{sent}")
    site.check("the API obeys a GET with _method", done.status == 200 and "By a GET" in done.text,
               done.why)
    sees(site, "a GET with _method", "/", "By a GET")

    warm()
    text = editor.get("/wp-admin/edit-comments.php").text
    comment, off = re.search(r"comment=?(?:.{0,30}?)c=(\d+)[^\"']*_wpnonce=(\w+)", text).groups()
    said = re.search(r"First of \w+|A second one|A comment of a guest", text)[0]
    done = editor.post("/wp-admin/admin-ajax.php", {
        "action": "dim-comment", "id": comment, "dimClass": "unapproved", "new": "unapproved",
        "_ajax_nonce": off, "_url": SITE + "/wp-admin/edit-comments.php"})
    site.check("a click takes a comment back", done.status == 200 and "-1" != done.text, done.why)
    sees(site, "a comment taken back", "/comments/feed/", said, is_there=False)

    warm()
    form = editor.get(f"/wp-admin/comment.php?action=approve&c={comment}")
    sent = {name: field(form, name) for name in ("action", "c", "_wpnonce")}
    done = editor.get(f"/wp-admin/comment.php?{urllib.parse.urlencode(sent)}")
    site.check("a link in a mail approves it", done.status == 302, done.why)
    sees(site, "a comment approved", "/comments/feed/", said)

    warm()
    beat = {"action": "heartbeat", "screen_id": "dashboard", "has_focus": "true", "interval": "60"}
    done = editor.post("/wp-admin/admin-ajax.php", beat)
    site.check("a heartbeat", done.status in (200, 400), done.why)
    site.hit("a heartbeat purges nothing", site.visitor().get("/"))
    for what, kind in (("multipart", "multipart/form-data; boundary=x"), ("no body", None)):
        warm()
        body = None if kind is None else b"--x--\r\n"
        done = editor.send("POST", "/wp-admin/admin-ajax.php?action=rest-nonce", raw=body,
                           headers={} if kind is None else {"Content-Type": kind})
        site.check(f"an action in the query, {what}", done.status == 200, done.why)
        found = site.visitor().get("/")
        site.hit(f"an action that cannot be read ({what}) purges the site", found, "MISS")

    warm()
    text = editor.get("/wp-admin/edit.php").text
    link = re.search(rf"post\.php\?post={three}&amp;action=trash&amp;_wpnonce=\w+", text)[0]
    done = editor.get("/wp-admin/" + html.unescape(link))
    site.check("a click on Trash is obeyed", done.status == 302, done.why)
    sees(site, "Trash", "/", "Post three", is_there=False)
    gone = site.visitor().get("/post-three/")
    site.check("the post is gone", gone.status == 404, gone.why)

    warm()
    table = editor.get("/wp-admin/edit.php?post_status=trash&post_type=post")
    bulk = f"action=untrash&action2=-1&post%5B%5D={three}&_wpnonce={field(table, '_wpnonce')}"
    done = editor.get(f"/wp-admin/edit.php?post_status=trash&post_type=post&{bulk}")
    site.check("a bulk action is obeyed", done.status == 302, done.why)
    draft = editor.get(f"/?p={three}&preview=true")
    site.check("its author sees the draft", "Post three" in draft.text, draft.why)
    draft = site.visitor().get(f"/?p={three}&preview=true")
    site.check("and no guest", draft.status == 404, draft.why)


def race(site, editor):
    """Guests read all the time while a post is saved again and again."""
    posts = site.visitor().get("/wp-json/wp/v2/posts").json()
    post = next(one["id"] for one in posts if one["slug"] == "post-one")
    nonce = {"X-WP-Nonce": rest_nonce(editor)}
    saved, stale, is_over = [0], [], threading.Event()

    def read(page):
        guest = site.visitor(analytics=True)
        while not is_over.is_set():
            least = saved[0]
            found = guest.get(page)
            version = re.search(r"Version (\d+)\.", found.text)
            if least and (version is None or int(version[1]) < least):
                stale.append(f"{page}: {version and version[0]} after {least}: {found.why}")

    readers = [threading.Thread(target=read, args=(page,)) for page in ("/", "/post-one/", "/feed/")]
    for reader in readers:
        reader.start()
    for version in range(1, RACE_WRITES + 1):
        done = editor.send("POST", f"/wp-json/wp/v2/posts/{post}", headers=nonce,
                           json_body={"title": f"Version {version}."})
        if not site.check(f"version {version} is saved", done.status == 200, done.why):
            break
        saved[0] = version
    is_over.set()
    for reader in readers:
        reader.join()
    site.check("nobody reads an earlier version than the one saved", not stale, stale[:3])


def protected(site):
    site.warm(site.visitor(), "/protected/")
    friend = site.visitor(analytics=True)
    page = friend.get("/protected/")
    site.check("a protected post has its form", "post_password" in page.text and
               "words that are" not in page.text, page.why)
    done = friend.post("/wp-login.php?action=postpass", {"post_password": "open sesame"},
                       headers={"Referer": SITE + "/protected/"})
    site.check("the password is taken", friend.cookie("wp-postpass_"), done.why)
    for what in ("first", "second"):
        page = friend.get("/protected/")
        site.check(f"the post opens, {what} time", "words that are protected" in page.text,
                   page.why)
    page = site.visitor().get("/protected/")
    site.check("for nobody else", "words that are protected" not in page.text, page.why)
    # The answer to the password named the post in `Location`, so that its page was purged.
    site.hit("a guest's form", site.visitor(analytics=True).get("/protected/"))


def log_out(site, reader, editor):
    for name, browser in (("reader", reader), ("editor", editor)):
        page = browser.get("/")
        link = re.search(r"""href=['"]([^'"]*action=logout[^'"]*)""", page.text)[1]
        done = browser.get(html.unescape(link))
        site.check(f"{name} is logged out", done.status == 302, done.why)
        page = browser.get("/")
        site.check(f"{name} is a guest now", _is_of(page, None), page.why)
