"""Two partners ask all day; one of them sends the new prices at night."""

TITLE = "Flask in Compose: callers with keys, and a POST that is a read"
PROGRAM = "app.py"
WRONG = {
    "partners share": [('"prices"] }', '"prices"], scope = "shared", admit = "route", '
                                       'pass_headers = ["x-api-key"] }'),
                       ('credential.headers', '# credential.headers')],
    "no purges": [('[[purges]]\npath = "/api/{*rest}"', '[[purges]]\npath = "/other"')],
}
KEYS = {"bank": "key-of-the-bank-0001", "broker": "key-of-the-broker-02"}


def day(world):
    partners = {
        name: world.user(name, profile="program", trace=trace, headers={"X-Api-Key": key})
        for (name, key), trace in zip(KEYS.items(), ("elastic", "datadog"))
    }
    for hour in range(18):
        for partner in partners.values():
            ask(partner)
        if hour == 6:
            measure_again(partners["broker"])
        if hour == 13:
            import_prices(partners["bank"])
    partners["broker"].write("POST", "/api/prices/import", json_body={"north": 1}, expect=403)
    partners["broker"].page("/api/homes/99", expect=404)
    world.user("a stranger", profile="program").page("/api/areas", expect=401)
    guess = world.user("a guess", profile="program", headers={"X-Api-Key": "key-of-the-bank-0002"})
    guess.page("/api/homes/1", expect=401)


def ask(partner):
    partner.read("/api/areas", expect=200)
    for area in ("north", "south"):
        partner.read(f"/api/areas/{area}/prices")
        partner.read(f"/api/homes?area={area}")
    for number in range(1, 7):
        partner.read(f"/api/homes/{number}")
    for number in range(1, 4):
        area = ("north", "east", "west")[number - 1]
        asked = {"area": area, "size": 50 + number, "rooms": number}
        partner.post_read("/api/valuations", json_body=asked, expect=200)
    partner.post_read("/api/valuations", json_body={"area": "nowhere", "size": 1}, expect=422)


def measure_again(partner):
    before = partner.read("/api/homes/2").json()
    partner.write("PATCH", "/api/homes/2", json_body={"size": before["size"] + 1}, expect=200)
    assert partner.read("/api/homes/2").json()["size"] == before["size"] + 1


def import_prices(partner):
    version = partner.read("/api/areas").json()["version"]
    new = {"north": 3000 + version, "west": 3700 + version}
    partner.write("POST", "/api/prices/import", json_body=new, expect=200)
    assert partner.read("/api/areas").json()["version"] == version + 1
