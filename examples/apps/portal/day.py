"""Three people at their desks, links from mails, and a job that runs twice a day."""

TITLE = "Bottle: an intranet with sessions and a sync job that writes past the sidecar"
PROGRAM = "app.py"
WRONG = {
    "departments share": [
        ("defaults = { ttl", 'defaults = { scope = "shared", admit = "route", ttl')],
    "nobody looks at the job": [("sources = [{", "# sources = [{")],
}


def day(world):
    people = [log_in(world, *who) for who in
              (("ada", "chrome", "newrelic"), ("bob", "firefox", None), ("eve", "safari", "w3c"))]
    for hour in range(12):
        for person in people:
            look_around(person, hour)
        if hour in (3, 8):
            before = people[2].read("/people?department=works").text()
            world.job("sync.py", str(world.steps % 50), tag="sync")
            assert people[2].read("/people?department=works").text() != before
        if hour == 6:
            people[0].write("POST", "/news", form={"title": f"Sold {world.steps}"}, expect=303)
            assert f"Sold {world.steps - 1}" in people[1].read("/").text()
    nobody = world.user("nobody", analytics=True)
    nobody.page("/prices", expect=302)
    nobody.page("/", expect=302)
    nobody.write("POST", "/login", form={"user": "mallory"}, expect=403)
    people[2].page("/news/1", expect=404)


def log_in(world, name, profile, trace):
    person = world.user(name, profile=profile, trace=trace, analytics=True)
    person.page("/", expect=302)
    person.page("/login")
    person.write("POST", "/login", form={"user": name}, expect=303)
    return person


def look_around(person, hour):
    person.read("/", expect=200)
    person.read("/news/3")
    person.read("/people?department=works&sort=phone")
    # The same page by a link of a mail, and in another order.
    person.read(f"/people?sort=phone&utm_source=mail-{hour}&department=works")
    person.read("/people?department=works")
    person.read("/prices", again=hour > 2)
    person.read("/files/site-map.svg")
    person.read("/files/site-map.svg", again=True)
    person.read("/files/site-map.svg", headers={"Range": "bytes=10-59"}, expect=206)
    person.send("HEAD", "/prices", "read")
