"""Tenants: a FastAPI service behind nginx. The tenant is a claim of the caller's token (JWT).

Its team cached with a decorator, by path and user id, for 30 seconds: each user of a tenant filled
a cache of their own with the same projects, and a colleague's change was seen half a minute late.
"""

import asyncio
import os
import pathlib
import socket

import fastapi
import jwt
import pydantic
import uvicorn

QUERY_SECONDS = 0.01
CLOCK = pathlib.Path(os.environ["APP_CLOCK"])
SECRET = os.environ["JWT_SECRET"]
HOURS = 8
USERS = {"ann": "acme", "ben": "acme", "cleo": "globex", "dora": "globex", "emil": "globex"}

app = fastapi.FastAPI()


class Database:
    """Projects and tasks of each tenant."""

    def __init__(self):
        self.projects = {
            tenant: {
                number: {"id": number, "name": f"{tenant} project {number}"}
                for number in range(1, 5)
            }
            for tenant in ("acme", "globex")
        }
        self.tasks = {
            (tenant, project): [
                {"id": task, "title": f"task {task} of {tenant}", "done": task % 3 == 0}
                for task in range(1, 8)
            ]
            for tenant in ("acme", "globex")
            for project in range(1, 5)
        }

    async def query(self, table):
        await asyncio.sleep(QUERY_SECONDS)
        return table


database = Database()


class Login(pydantic.BaseModel):
    """Who wants a token."""

    user: str
    password: str


class Change(pydantic.BaseModel):
    """What becomes of a task."""

    title: str | None = None
    done: bool | None = None


def now():
    return int(CLOCK.read_text())


def claims(token):
    try:
        # The day's clock stands an hour back, within the life of a token.
        return jwt.decode(token, SECRET, algorithms=["HS256"], issuer="tenants")
    except jwt.InvalidTokenError as error:
        raise fastapi.HTTPException(401, "no valid token") from error


def caller(authorization: str = fastapi.Header("")):
    return claims(authorization.removeprefix("Bearer "))


Caller = fastapi.Depends(caller)


@app.post("/auth/token")
def token(login: Login):
    if login.user not in USERS or login.password != f"{login.user}-secret":
        raise fastapi.HTTPException(403, "wrong user or password")
    payload = {"iss": "tenants", "sub": login.user, "tenant": USERS[login.user], "iat": now(),
               "exp": now() + HOURS * 3600}
    return {"access_token": jwt.encode(payload, SECRET, algorithm="HS256"), "token_type": "bearer"}


@app.get("/api/me")
async def me(who=Caller):
    return {"user": who["sub"], "tenant": who["tenant"]}


@app.get("/api/projects")
async def projects(who=Caller):
    return list((await database.query(database.projects))[who["tenant"]].values())


@app.get("/api/projects/{number}")
async def project(number: int, who=Caller):
    found = (await database.query(database.projects))[who["tenant"]].get(number)
    if found is None:
        raise fastapi.HTTPException(404, "no such project")
    return found


@app.get("/api/projects/{number}/tasks")
async def tasks(number: int, done: bool | None = None, who=Caller):
    found = (await database.query(database.tasks)).get((who["tenant"], number))
    if found is None:
        raise fastapi.HTTPException(404, "no such project")
    return [task for task in found if done in (None, task["done"])]


@app.patch("/api/projects/{number}/tasks/{at}")
async def change(number: int, at: int, sent: Change, who=Caller):
    found = database.tasks.get((who["tenant"], number), [])
    task = next((task for task in found if task["id"] == at), None)
    if task is None:
        raise fastapi.HTTPException(404, "no such task")
    task |= sent.model_dump(exclude_none=True)
    return task


@app.post("/api/projects", status_code=201)
async def add(sent: dict, who=Caller):
    rows = database.projects[who["tenant"]]
    number = max(rows) + 1
    rows[number] = {"id": number, "name": str(sent["name"])}
    database.tasks[who["tenant"], number] = []
    return rows[number]


@app.websocket("/ws/projects/{number}")
async def live(stream: fastapi.WebSocket, number: int):
    """Echoes what a member of the project writes, with the tenant's name in front."""
    try:
        who = claims(stream.headers.get("authorization", "").removeprefix("Bearer "))
    except fastapi.HTTPException:
        await stream.close(1008)
        return
    await stream.accept()
    try:
        while True:
            await stream.send_text(f"{who['tenant']} {number}: {await stream.receive_text()}")
    except fastapi.WebSocketDisconnect:
        pass


if __name__ == "__main__":
    # With its protocol named, asyncio sends small packets at once (TCP_NODELAY).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", 0))))
    listener.listen()
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    settings = uvicorn.Config(app, log_level="warning", proxy_headers=False)
    uvicorn.Server(settings).run(sockets=[listener])
