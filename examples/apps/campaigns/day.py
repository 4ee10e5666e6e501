"""Two accounts with programs and people; people log in, write notes and get messages."""

TITLE = "Flask: an API keyed by a prefix of the token, and a rolling signed session"
PROGRAM = "app.py"
SECRETS = {"FLASK_SECRET": "the-secret-of-the-campaigns"}
# A signed session is payload.time.signature.
PAYLOAD_OF = {"session": lambda value: value.rsplit(".", 2)[0]}
WRONG = {
    "accounts share": [('key   = ["account"]', 'admit = "route"'), ("api:{account}", "api")],
    "no purges": [('purges = [{ path = "/api/', 'purges = [{ path = "/other/')],
}

TOKENS = {"acme": "acme-7d1f0c55e9b24a6", "globex": "globex-91c4aa7e03d8f"}


def day(world):
    programs = [
        world.user(f"{account} {device}", profile="program", trace=trace,
                   headers={"Authorization": f"Bearer {TOKENS[account]}.{device}"})
        for account in TOKENS
        for device, trace in (("batch", "datadog"), ("phone", "w3c"))
    ]
    people = [log_in(world, name, profile, trace) for name, profile, trace in (
        ("ann", "chrome", "sentry"), ("ben", "firefox", None),
        ("cleo", "safari", "newrelic"), ("dora", "chrome", None))]
    for hour in range(15):
        for program in programs:
            work(program)
        for person in people:
            look_around(person)
        if hour in (4, 10):
            change(programs[0], hour)
            change(programs[3], hour)
        if hour in (6, 13):
            write_a_note(people[hour % 4], hour)
    strangers(world)
    leaving = people[0]
    leaving.write("POST", "/logout", expect=303)
    leaving.page("/desk", expect=302)


def log_in(world, name, profile, trace):
    person = world.user(name, profile=profile, trace=trace, analytics=True)
    person.page("/desk", expect=302)
    person.page("/login")
    person.write("POST", "/login", form={"user": name, "password": "no"}, expect=403)
    person.write("POST", "/login", form={"user": name, "password": f"{name}-secret"}, expect=303)
    # The welcome is shown once.
    assert "Welcome" in person.page("/desk").text()
    assert "Welcome" not in person.read("/desk").text()
    return person


def work(program):
    program.read("/api/campaigns")
    program.read("/api/campaigns?budget_from=1000")
    for number in (1, 2, 3):
        program.read(f"/api/campaigns/{number}")
    program.read("/api/reports/budget")


def look_around(person):
    person.read("/desk")
    person.read("/desk/reports")
    person.read("/desk/notes/0")
    person.read("/desk")


def change(program, hour):
    before = program.read("/api/campaigns/2").json()
    program.write("PUT", "/api/campaigns/2", json_body={"budget": before["budget"] + 1}, expect=200)
    assert program.read("/api/campaigns/2").json()["budget"] == before["budget"] + 1
    if hour == 4:
        program.write("POST", "/api/campaigns", json_body={"name": "one more"}, expect=201)
    program.write("PUT", "/api/campaigns/99", json_body={}, expect=404)


def write_a_note(person, hour):
    person.write("POST", "/desk/notes", form={"text": f"at {hour} by {person.name}"}, expect=303)
    assert "on the desk" in person.page("/desk").text()
    assert f"at {hour}" in person.read("/desk").text()


def strangers(world):
    odd = world.user("odd", profile="program",
                     headers={"Authorization": f"Bearer {TOKENS['acme']}.odd"})
    for _ in range(2):
        odd.send("HEAD", "/api/campaigns/1", "page")
        odd.send("OPTIONS", "/api/campaigns/1", "page")
        odd.page("/api/campaigns/", expect=404)
        odd.page("/api/campaigns?budget_from=%31000&budget_from=7")
        odd.page("/api/campaigns/1", headers={"Cache-Control": "no-cache", "Pragma": "no-cache"})
        odd.page("/api/campaigns/1", headers={"X-Requested-With": "XMLHttpRequest"})
        odd.page("/api/campaigns/1", headers={"X-Feature-Flags": "beta"})
    stranger = world.user("a stranger", profile="program",
                          headers={"Authorization": "Bearer acme-7d1f0c55e9b24a6"})
    stranger.page("/api/campaigns", expect=401)
    world.user("nobody", profile="chrome", analytics=True).page("/api/campaigns", expect=401)
    forged = world.user("a forger", profile="chrome")
    forged.cookies["session"] = "eyJ1c2VyIjoiYW5uIn0.aAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAA"
    forged.page("/desk", expect=302)
