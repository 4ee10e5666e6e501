"""Club: a Django site for guests and members, with logins, forms that guard against CSRF, messages.

Its team used `cache_page` until a member was greeted with another one's name, and caches for nobody
since then. Sessions are Django's default: an id in a cookie, and rows in a database.
"""

import os
import pathlib
import random
import secrets
import threading
import time

import django
import waitress
from django.conf import settings

QUERY_SECONDS = 0.01
CLOCK = pathlib.Path(os.environ["APP_CLOCK"])
DATABASE = pathlib.Path(os.environ.get("APP_DATA", ".")) / "club.sqlite"

PAGE = """<!doctype html><title>{{ title }}</title>
<nav>{% if user.is_authenticated %}Hello, {{ user.username }} <a href="/topics/new/">new topic</a>
{% else %}<a href="/login/">log in</a>{% endif %}</nav>
{% for message in messages %}<p class="{{ message.tags }}">{{ message }}</p>
{% endfor %}<h1>{{ title }}</h1>
{% for topic in topics %}<p><a href="/topics/{{ topic.id }}/">{{ topic.title }}</a></p>
{% endfor %}{% for line in lines %}<p>{{ line }}</p>
{% endfor %}"""

FORM = """<!doctype html><title>{{ title }}</title><form method="post">{% csrf_token %}
{% for name in names %}<input name="{{ name }}">{% endfor %}<button>{{ title }}</button></form>
"""

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=os.environ["DJANGO_SECRET"],
    ROOT_URLCONF=__name__,
    LOGIN_URL="/login/",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth",
                    "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=[f"{__name__}.seeded",
                "django.middleware.security.SecurityMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware"],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader",
                         {"page.html": PAGE, "form.html": FORM})],
            "context_processors": ["django.contrib.auth.context_processors.auth",
                                   "django.contrib.messages.context_processors.messages"],
        },
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    # Cookies that end with the browser have no time in them.
    SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
    CSRF_COOKIE_AGE=None,
)
django.setup()

from django.contrib import auth, messages  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.core import signing  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import Http404  # noqa: E402
from django.shortcuts import redirect, render  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import crypto  # noqa: E402

local = threading.local()


class Seeded:
    """Session ids and CSRF tokens by the given clock, so that a day can be repeated."""

    def choice(self, letters):
        return getattr(local, "random", random).choice(letters)

    def __getattr__(self, name):
        return getattr(secrets, name)


crypto.secrets = Seeded()
signing.TimestampSigner.timestamp = lambda _: signing.b62_encode(int(CLOCK.read_text()))


def seeded(get_response):
    def middleware(request):
        local.random = random.Random(CLOCK.read_text())
        return get_response(request)

    return middleware


class Topic(models.Model):
    """What a member has asked, and what others have replied."""

    title = models.CharField(max_length=80)
    author = models.CharField(max_length=80)
    replies = models.JSONField(default=list)

    class Meta:
        """The table's app is this file."""

        app_label = "club"


def topics(request):
    time.sleep(QUERY_SECONDS)
    newest = Topic.objects.order_by("-id")[:20]
    return render(request, "page.html", {"title": "Topics", "topics": newest})


def topic(request, number):
    time.sleep(QUERY_SECONDS)
    found = Topic.objects.filter(id=number).first()
    if found is None:
        raise Http404
    lines = [f"asked by {found.author}", *found.replies]
    return render(request, "page.html", {"title": found.title, "lines": lines})


def profile(request):
    if not request.user.is_authenticated:
        return redirect("/login/")
    time.sleep(QUERY_SECONDS)
    mine = Topic.objects.filter(author=request.user.username).order_by("id")
    return render(request, "page.html", {"title": "My topics", "topics": mine})


@login_required
def new_topic(request):
    if request.method == "POST":
        title = request.POST["title"]
        made = Topic.objects.create(title=title, author=request.user.username)
        messages.success(request, f"{title} is there")
        return redirect(f"/topics/{made.id}/")
    return render(request, "form.html", {"title": "New topic", "names": ["title"]})


@login_required
def reply(request, number):
    if request.method == "POST":
        found = Topic.objects.get(id=number)
        found.replies.append(f"{request.user.username}: {request.POST['text']}")
        found.save()
        messages.success(request, "Thank you")
        return redirect(f"/topics/{number}/")
    return render(request, "form.html", {"title": "Reply", "names": ["text"]})


def login(request):
    if request.method == "POST":
        credentials = {"username": request.POST["user"], "password": request.POST["password"]}
        user = auth.authenticate(request, **credentials)
        if user is not None:
            auth.login(request, user)
            messages.info(request, "Welcome back")
            return redirect("/topics/")
        messages.error(request, "Wrong user or password")
    return render(request, "form.html", {"title": "Log in", "names": ["user", "password"]})


def logout(request):
    if request.method == "POST":
        auth.logout(request)
    return redirect("/topics/")


urlpatterns = [
    path("topics/", topics),
    path("topics/<int:number>/", topic),
    path("topics/new/", new_topic),
    path("topics/<int:number>/reply/", reply),
    path("members/me/", profile),
    path("login/", login),
    path("logout/", logout),
]


def prepare():
    DATABASE.unlink(missing_ok=True)
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Topic)
    for name in ("ann", "ben"):
        auth.get_user_model().objects.create_user(name, password=f"{name}-secret")
    for number in range(1, 6):
        Topic.objects.create(title=f"Question {number}", author="ann" if number % 2 else "ben")


if __name__ == "__main__":
    prepare()
    port = int(os.environ.get("PORT", 0))
    server = waitress.create_server(get_wsgi_application(), host="127.0.0.1", port=port)
    print(f"listening on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()
