"""A day: who its users are is told by the app's `day.py`; this notes what they send and get."""

import os
import subprocess
import time

from .browser import Browser


class Day:
    """One app's day, on one way to it. The app's clock is the file `clock`, in whole seconds."""

    def __init__(self, clock, began):
        self.clock, self.began = clock, began
        self.steps = 0
        # How long its users wait before each request, in seconds.
        self.pause = 0
        self.exchanges = []
        self.browsers = []
        self._tell_the_time()

    def connect(self, address, admin, sidecache, env, python):
        self.address, self.admin = address, admin
        self.sidecache, self.env, self.python = sidecache, env, python

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

    def job(self, file, *arguments):
        """Runs a job of the app, such as one that cron starts, and waits for its end."""
        self.next_step()
        command = [str(self.python), os.path.join(self.env["APP_FOLDER"], file), *arguments]
        subprocess.run(command, env=self.env, check=True, timeout=60)

    def purge(self, *tags):
        """What a job does at its end, where there is a sidecar: `sidecache purge --tag`."""
        if self.admin is not None:
            flags = [part for tag in tags for part in ("--tag", tag)]
            subprocess.run([str(self.sidecache), "purge", *flags, "--admin",
                            f"http://127.0.0.1:{self.admin}"], env=self.env, check=True, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _tell_the_time(self):
        # Renamed into place: an app never reads half of a number.
        new = self.clock.with_suffix(".new")
        new.write_text(str(self.began + self.steps))
        new.replace(self.clock)
