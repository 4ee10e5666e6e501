"""A day: who its users are is told by the app's `day.py`; this notes what they send and get."""

import json
import os
import subprocess
import time
import urllib.request

from .browser import Browser


# How long a source may take to begin, and to hear of a change, in seconds.
SOURCE_PATIENCE = 20


class Day:
    """One app's day, on one way to it. The app's clock is the file `clock`, in whole seconds."""

    def __init__(self, clock, began):
        self.clock, self.began = clock, began
        self.steps = 0
        # How long its users wait before each request, in seconds.
        self.pause = 0
        # Whether jobs end with `sidecache purge`, where the sidecar has no source that hears of them.
        self.jobs_purge = False
        self.exchanges = []
        self.browsers = []
        self._tell_the_time()

    def connect(self, address, admin, sidecache, env, python):
        self.address, self.admin = address, admin
        self.sidecache, self.env, self.python = sidecache, env, python
        self._until(lambda sources: all(one["state"] == "listening" for one in sources))

    def run(self, script):
        """Runs the script once more. Users of another day are others: their cookies are gone."""
        script(self)
        for browser in self.browsers:
            browser.close()
        self.browsers = []
        return self.exchanges

    def user(self, name, **more):
        self.browsers.append(Browser(self, name, **more))
        return self.browsers[-1]

    def next_step(self):
        """Each request has a second of the app's time of its own, the same one on both ways."""
        self.steps += 1
        time.sleep(self.pause)
        self._tell_the_time()
        return self.steps

    def note(self, exchange):
        self.exchanges.append(exchange)

    def job(self, file, *arguments, tag=None):
        """Runs a job of the app, such as one that cron starts, and waits for its end; and, if it
        changes what has this tag, until the sources of the sidecar have purged that."""
        self.next_step()
        before = [one["purged_tags"] for one in self._sources()] if tag else []
        command = [str(self.python), os.path.join(self.env["APP_FOLDER"], file), *arguments]
        subprocess.run(command, env=self.env, check=True, timeout=60)
        self._until(lambda sources: all(one["purged_tags"] > count
                                        for one, count in zip(sources, before)))
        if tag and self.jobs_purge and self.admin is not None:
            subprocess.run([str(self.sidecache), "purge", "--tag", tag, "--admin",
                            f"http://127.0.0.1:{self.admin}"], env=self.env, check=True, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _sources(self):
        """What the sidecar says of its sources, where there is a sidecar."""
        if self.admin is None:
            return []
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats", timeout=10) as answer:
            return json.load(answer)["sources"]

    def _until(self, is_so):
        """Waits until this is so of the sources."""
        ends = time.monotonic() + SOURCE_PATIENCE
        while not is_so(self._sources()):
            assert time.monotonic() < ends, f"the sources do not hear: {self._sources()}"
            time.sleep(0.01)

    def _tell_the_time(self):
        # Renamed into place: an app never reads half of a number.
        new = self.clock.with_suffix(".new")
        new.write_text(str(self.began + self.steps))
        new.replace(self.clock)
