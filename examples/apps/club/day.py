"""Guests read, two members log in, ask and reply; each message is shown once."""

import re

TITLE = "Django: guests, logins, forms and messages"
PROGRAM = "app.py"
SECRETS = {"DJANGO_SECRET": "the-secret-of-the-club-is-for-tests-alone"}
WRONG = {
    # Django says `Vary: Cookie`, so that a wrong scope alone gives nobody the page of another.
    "members share": [('ttl = "5m"', 'ttl = "5m", scope = "public", vary_cookie = "ignore"')],
    "no purges": [('purges = [{ path = "/topics/', 'purges = [{ path = "/other/')],
}


def day(world):
    guests = [world.user(f"guest {at}", profile=profile, trace=trace, analytics=True)
              for at, (profile, trace) in enumerate((
                  ("chrome", None), ("firefox", "w3c"), ("safari", None), ("chrome", "datadog")))]
    # This one has looked at the login and left: the token of its form stays in a cookie.
    guests[3].page("/login/")
    members = [log_in(world, *who) for who in (
        ("ann", "chrome", "sentry"), ("ben", "firefox", None))]
    for hour in range(12):
        for guest in guests:
            look_around(guest, hour)
        for member in members:
            look_around(member, hour)
            member.read("/members/me/")
        if hour == 2:
            ask(members[0], world.steps)
        if hour == 6:
            reply(members[1], hour)
    guests[0].page("/topics/99/", expect=404)
    for guest in guests[:2]:
        guest.page("/topics", expect=301)
        guest.page("/topics/%33/")
        guest.page("/topics/3/?page=1&page=2")
    guests[0].page("/members/me/", expect=302)
    guests[1].write("POST", "/topics/new/", form={"title": "spam"}, expect=403)
    sent = {"csrfmiddlewaretoken": token(members[1])}
    members[1].write("POST", "/logout/", form=sent, expect=302)
    assert "log in" in members[1].page("/topics/").text()


def token(browser, target="/topics/new/"):
    text = browser.page(target, expect=200).text()
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)[1]


def log_in(world, name, profile, trace):
    member = world.user(name, profile=profile, trace=trace, analytics=True)
    member.read("/topics/")
    sent = {"csrfmiddlewaretoken": token(member, "/login/"), "user": name, "password": "no"}
    member.write("POST", "/login/", form=sent, expect=200)
    sent = {"csrfmiddlewaretoken": token(member, "/login/"), "user": name,
            "password": f"{name}-secret"}
    member.write("POST", "/login/", form=sent, expect=302)
    page = member.page("/topics/").text()
    assert "Welcome back" in page and f"Hello, {name}" in page
    assert "Welcome back" not in member.read("/topics/").text()
    return member


def look_around(reader, hour):
    reader.read("/topics/", expect=200)
    for number in (1, 2, 3, 4):
        reader.read(f"/topics/{number}/")
    if hour == 0:
        # The link of a newsletter.
        reader.read("/topics/1/?utm_source=letter")
    reader.read("/topics/")


def ask(member, step):
    title = f"Question of step {step}"
    sent = {"csrfmiddlewaretoken": token(member), "title": title}
    made = member.write("POST", "/topics/new/", form=sent, expect=302).header("location")
    assert f"{title} is there" in member.page(made).text()
    assert f"{title} is there" not in member.read(made).text()
    assert title in member.read("/topics/").text()


def reply(member, hour):
    sent = {"csrfmiddlewaretoken": token(member, "/topics/2/reply/"), "text": f"at {hour}"}
    member.write("POST", "/topics/2/reply/", form=sent, expect=302)
    assert "Thank you" in member.page("/topics/2/").text()
    assert f"ben: at {hour}" in member.read("/topics/2/").text()
