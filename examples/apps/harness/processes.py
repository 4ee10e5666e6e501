"""Processes of a run: apps, sidecars and nginx. Each is ended by its own process id."""

import os
import re
import socket
import subprocess
import time

START_SECONDS = 60
STOP_SECONDS = 10


class Failed(Exception):
    """The run cannot go on."""


class Processes:
    """All that one leg has started; leaving the block ends them, the last one first."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.running):
            if child.poll() is None:
                child.terminate()
        for child in reversed(self.running):
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(self, name, command, env, pattern):
        """Starts a process and returns what the pattern finds in its output."""
        log = self.folder / f"{name}.log"
        with open(log, "wb") as output:
            child = subprocess.Popen([str(part) for part in command], cwd=self.folder, env=env,
                                     stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=subprocess.STDOUT)
        self.running.append(child)
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends:
            found = re.search(pattern, log.read_text(errors="replace"))
            if found:
                return found
            if child.poll() is not None:
                break
            time.sleep(0.05)
        raise Failed(f"{name} does not start; see {log}\n{log.read_text(errors='replace')[-2000:]}")

    def start_nginx(self, program, template, upstream):
        """nginx cannot tell which port it got, so free ones are tried."""
        for _ in range(10):
            port = free_port()
            text = template.replace("LISTEN", f"127.0.0.1:{port}").replace("UPSTREAM", upstream)
            file = self.folder / "nginx.conf"
            file.write_text(text)
            log = open(self.folder / "nginx.log", "ab")
            child = subprocess.Popen([program, "-p", str(self.folder), "-c", str(file)],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            log.close()
            for _ in range(100):
                if child.poll() is not None:
                    break
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    self.running.append(child)
                    return port
                except OSError:
                    time.sleep(0.05)
            else:
                child.kill()
            child.wait()
        raise Failed(f"nginx does not start; see {self.folder}/nginx.log")

    def start_sidecar(self, program, rules, app, env):
        """Starts a sidecar with these rules, and returns its address and that of its admin API."""
        for address in ("http://127.0.0.1:5000", "http://app:5000"):
            rules = rules.replace(address, f"http://127.0.0.1:{app}")
        # Where it listens is not a matter of the rules: that is chosen here.
        kept = [line for line in rules.splitlines() if not line.startswith("listen.address")]
        rules = "\n".join(kept)
        file = self.folder / "proxy.toml"
        for tries in reversed(range(10)):
            admin = free_port()
            file.write_text(f'listen.address = "127.0.0.1:0"\nadmin.address = "127.0.0.1:{admin}"\n'
                            f'log.format = "json"\n{rules}\n')
            try:
                found = self.start("sidecar", [program, "--config", file], env,
                                   r'"listening","address":"127\.0\.0\.1:(\d+)"')
                return int(found[1]), admin
            except Failed:
                if not tries or "address in use" not in self.log("sidecar").lower():
                    raise

    def start_at(self, program, text, ports, env):
        """Starts a sidecar in front of the app at the first port, to listen at the others: without
        a file if there is no text, or with exactly this one, which says the same."""
        app, listen, admin = (f"127.0.0.1:{port}" for port in ports)
        command = [program, "--upstream", f"http://{app}", "--listen", listen, "--admin", admin]
        if text is not None:
            file = self.folder / "proxy.toml"
            file.write_text(text)
            command = [program, "--config", file]
        self.start("sidecar", command, env, r"\blistening\b")

    def learned(self, program, admin):
        """The proxy.toml that a sidecar without rules proposes."""
        command = [str(program), "advise", "--file", "--admin", f"http://127.0.0.1:{admin}"]
        done = subprocess.run(command, env=environment(), timeout=60, capture_output=True,
                              text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            raise Failed(f"advise --file: exit code {done.returncode}: {done.stderr}")
        (self.folder / "learned.toml").write_text(done.stdout)
        return done.stdout

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more):
    """The shell's environment without what would change a sidecar or an app."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("SIDECACHE", "RUST_LOG", "FLASK", "DJANGO"))}
    return kept | {name: str(value) for name, value in more.items()}
