"""Five users of two tenants work in a page that asks an API, and talk over WebSockets."""

TITLE = "FastAPI behind nginx: tenants in tokens (JWT), and WebSockets"
PROGRAM = "app.py"
SECRETS = {"JWT_SECRET": "a-secret-of-the-tenants-with-32-bytes"}
WRONG = {
    "tenants share": [('scope = "shared"', 'admit = "route"\nscope = "shared"'),
                      ('tags  = ["projects:{tenant}"]', 'tags  = ["projects"]')],
    "no purges": [('purges = [{ path = "/api/projects/', 'purges = [{ path = "/api/other/')],
}


def day(world):
    traces = {"ann": "datadog", "ben": "sentry", "cleo": "w3c", "dora": None, "emil": "elastic"}
    users = [log_in(world, name, trace) for name, trace in traces.items()]
    for hour in range(10):
        for user in users:
            work(user)
        if hour == 3:
            tick(users[0], 2, hour)
        if hour == 6:
            tick(users[3], 1, hour)
            users[3].write("POST", "/api/projects", json_body={"name": "one more"}, expect=201)
        talk(users[hour % 5], hour)
    outsiders(world, users[0])


def log_in(world, name, trace):
    user = world.user(name, profile="page-script", trace=trace, analytics=True)
    user.write("POST", "/auth/token", json_body={"user": name, "password": "no"}, expect=403)
    wanted = {"user": name, "password": f"{name}-secret"}
    token = user.write("POST", "/auth/token", json_body=wanted, expect=200).json()["access_token"]
    user.headers["Authorization"] = f"Bearer {token}"
    return user


def work(user):
    user.read("/api/me", expect=200)
    user.read("/api/projects", expect=200)
    for project in (1, 2):
        user.read(f"/api/projects/{project}")
        user.read(f"/api/projects/{project}/tasks")
        user.read(f"/api/projects/{project}/tasks?done=false")
    user.read("/api/projects")


def tick(user, project, hour):
    before = user.read(f"/api/projects/{project}/tasks").json()
    done = not before[hour % 5]["done"]
    task = before[hour % 5]["id"]
    target = f"/api/projects/{project}/tasks/{task}"
    user.write("PATCH", target, json_body={"done": done}, expect=200)
    assert user.read(f"/api/projects/{project}/tasks").json()[hour % 5]["done"] == done
    user.write("PATCH", f"/api/projects/{project}/tasks/77", json_body={"done": True}, expect=404)
    user.write("PATCH", target, json_body={"done": "perhaps"}, expect=422)


def talk(user, hour):
    stream = user.talk(f"/ws/projects/{hour}", ["good morning", f"it is {hour}"])
    assert stream.status == 101 and b"it is" in stream.body


def outsiders(world, user):
    nobody = world.user("nobody", profile="page-script", analytics=True)
    nobody.page("/api/projects", expect=401)
    nobody.talk("/ws/projects/1", ["hello"])
    forged = world.user("a forger", profile="page-script")
    forged.headers["Authorization"] = user.headers["Authorization"][:-4] + "AAAA"
    forged.page("/api/projects", expect=401)
    user.page("/api/projects/99", expect=404)
    for _ in range(2):
        user.page("/api/projects/", expect=307)
        user.page("/api/projects/1/tasks?done=true&done=false")
        user.page("/api/projects/1/tasks?done=perhaps", expect=422)
        user.page("/api/projects/1/tasks?DONE=true")
    user.page("/api/projects/none", expect=422)
