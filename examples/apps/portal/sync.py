"""The sync job: writes what the other systems know into the portal's database, past every cache.

With a sidecar in front of the portal, its last line is `sidecache purge --tag sync`.
"""

import os
import pathlib
import sqlite3
import sys

DATABASE = pathlib.Path(os.environ.get("APP_DATA", ".")) / "portal.sqlite"


def main(run):
    connection = sqlite3.connect(DATABASE)
    with connection:
        connection.execute("UPDATE prices SET cents = cents + ?", (run,))
        phone = str(20 + run)
        connection.execute("UPDATE people SET phone = ? WHERE name = 'Eve'", (phone,))
        new = (f"New {run}", phone)
        connection.execute("INSERT OR IGNORE INTO people VALUES (?, 'works', ?)", new)
    connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
