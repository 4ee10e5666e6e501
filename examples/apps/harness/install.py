"""Installs what the apps need, into one folder outside of the tree, at pinned versions."""

import hashlib
import pathlib
import shutil
import subprocess
import sys

APPS = pathlib.Path(__file__).resolve().parent.parent
NODE_APPS = {"orders"}
NGINX_APPS = {"tenants"}
NGINX = ["/usr/sbin/nginx", "nginx"]


def python(folder):
    return folder / "python" / "bin" / "python"


def missing(options, names):
    """What these apps need and is not there; notes where nginx is."""
    found = []
    if not options.sidecache.exists():
        found.append(str(options.sidecache))
    options.nginx = next((path for path in map(shutil.which, NGINX) if path), None)
    if options.nginx is None and NGINX_APPS & set(names):
        found.append("nginx")
    if set(names) - NODE_APPS and not _is_installed(options.folder, "python"):
        found.append("packages of PyPI")
    if NODE_APPS & set(names):
        if shutil.which("node") is None:
            found.append("node")
        if not _is_installed(options.folder, "node"):
            found.append("packages of npm")
    return found


def install(folder, what):
    folder.mkdir(parents=True, exist_ok=True)
    if "packages of PyPI" in what:
        _clear(folder, "python")
        subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
        files = [part for file in _requirements() for part in ("-r", file)]
        quiet = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps"]
        subprocess.run([python(folder), "-m", "pip", "install", *quiet, *files], check=True)
        _note(folder, "python")
    if "packages of npm" in what:
        _clear(folder, "node")
        (folder / "node").mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(APPS / "orders" / name, folder / "node")
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", "ci", *quiet], cwd=folder / "node", check=True,
                       stdout=subprocess.DEVNULL)
        _note(folder, "node")


def _requirements():
    return sorted(APPS.glob("*/requirements.txt"))


def _digest(kind):
    files = _requirements() if kind == "python" else [APPS / "orders" / "package-lock.json"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _stamp(folder, kind):
    return folder / f"{kind}.installed"


def _note(folder, kind):
    _stamp(folder, kind).write_text(_digest(kind))


def _clear(folder, kind):
    _stamp(folder, kind).unlink(missing_ok=True)
    shutil.rmtree(folder / kind, ignore_errors=True)


def _is_installed(folder, kind):
    stamp = _stamp(folder, kind)
    return stamp.exists() and stamp.read_text() == _digest(kind)
