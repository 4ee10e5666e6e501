"""The shops of two merchants ask by REST and GraphQL, and two clerks look at their orders."""

TITLE = "Express: response tags, GraphQL, and a back office with cookie-session"
PROGRAM = "app.cjs"
SECRETS = {"OFFICE_SECRET": "the-secret-of-the-back-office"}
WRONG = {
    "merchants share": [('path = "/api/{*rest}"              # check: ok',
                         'path = "/api/{*rest}"\nscope = "shared"\nadmit = "route"')],
    "REST leaves the queries": [('path = "/api/{*rest}"              # GraphQL shows the same orders',
                                 'path = "/nowhere"')],
}
TOKENS = {"acme": "token-of-acme-0001", "globex": "token-of-globex-01"}
LIST = "query List($state: String) { orders(state: $state) { id state total } }"
ONE = "query One($id: Int!) { order(id: $id) { customer total } }"
SET = "mutation Set($id: Int!, $total: Int!) { setTotal(id: $id, total: $total) { total } }"


def day(world):
    shops = [
        world.user(f"{merchant} {kind}", profile=profile, trace=trace, analytics=kind == "shop",
                   headers={"Authorization": f"Bearer {token}"})
        for merchant, token in TOKENS.items()
        for kind, profile, trace in (
            ("shop", "page-script", "datadog"), ("batch", "program", "jaeger"))
    ]
    clerks = [log_in(world, *who) for who in (
        ("ann", "chrome", "sentry"), ("cleo", "firefox", None))]
    for hour in range(10):
        for shop in shops:
            ask(shop, hour)
        for clerk in clerks:
            clerk.read("/office/orders", expect=200)
            clerk.read("/office/orders", again=True)
        if hour in (3, 7):
            change(shops[0], clerks[0], hour)
        if hour == 5:
            mutate(shops[2], hour)
    for _ in range(2):
        shops[0].send("HEAD", "/api/orders/1", "page")
        shops[0].send("OPTIONS", "/api/orders/1", "page")
        shops[0].page("/API/Orders/1")
        shops[0].page("/api/orders/1/")
        shops[0].page("/api/orders?state=open&state=sent")
        shops[0].page("/api/orders?state[]=open")
        shops[0].page("/api/orders/1", headers={"If-None-Match": "*"})
        shops[0].page("/api/orders/1", headers={"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"})
    stranger = world.user("a stranger", profile="program")
    stranger.page("/api/orders", expect=401)
    stranger.write("POST", "/graphql", json_body={"query": "{ orders { id } }"}, expect=401)
    forger = world.user("a forger", profile="chrome")
    forger.cookies |= {"office": "eyJ1c2VyIjoiYW5uIn0=", "office.sig": 27 * "A"}
    forger.page("/office/orders", expect=302)


def log_in(world, name, profile, trace):
    clerk = world.user(name, profile=profile, trace=trace, analytics=True)
    clerk.page("/office/orders", expect=302)
    clerk.page("/office/login")
    clerk.write("POST", "/office/login", form={"user": "mallory"}, expect=403)
    clerk.write("POST", "/office/login", form={"user": name}, expect=303)
    return clerk


def ask(shop, hour):
    shop.read("/api/orders", again=hour % 2 == 1)
    shop.read("/api/orders?state=open")
    for order in (1, 2, 3, 4):
        shop.read(f"/api/orders/{order}")
    shop.read("/api/customers/1/total")
    variables = {"state": "open"}
    shop.post_read("/graphql", json_body={"query": LIST, "variables": variables}, expect=200)
    shop.post_read("/graphql", json_body={"query": ONE, "variables": {"id": 3}}, expect=200)


def change(shop, clerk, hour):
    state = f"sent at {hour}"
    shop.write("PUT", "/api/orders/2/state", json_body={"state": state}, expect=200)
    assert shop.read("/api/orders/2").json()["state"] == state
    assert state in clerk.read("/office/orders").text()
    shop.write("PUT", "/api/orders/99/state", json_body={"state": state}, expect=404)


def mutate(shop, hour):
    before = shop.read("/api/customers/3/total").json()["total"]
    old = shop.read("/api/orders/3").json()["total"]
    sent = {"query": SET, "variables": {"id": 3, "total": old + hour}}
    shop.write("POST", "/graphql", json_body=sent, expect=200)
    assert shop.read("/api/customers/3/total").json()["total"] == before + hour
