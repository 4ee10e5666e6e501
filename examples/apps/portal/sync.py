"""The sync job: writes what the other systems know into the portal's database, past every cache.

It knows of no sidecar. When it is done it writes its number to `last-sync`, as such jobs do for the
people who watch them; a sidecar can look at that, too.
"""

import os
import pathlib
import sqlite3
import sys

DATA = pathlib.Path(os.environ.get("APP_DATA", "."))
DATABASE = DATA / "portal.sqlite"


def main(run):
    connection = sqlite3.connect(DATABASE)
    with connection:
        connection.execute("UPDATE prices SET cents = cents + ?", (run,))
        phone = str(20 + run)
        connection.execute("UPDATE people SET phone = ? WHERE name = 'Eve'", (phone,))
        new = (f"New {run}", phone)
        connection.execute("INSERT OR IGNORE INTO people VALUES (?, 'works', ?)", new)
    connection.close()
    (DATA / "last-sync").write_text(f"{run}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
