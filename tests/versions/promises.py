"""The promises of docs/src/operations/versions.md, each as a function that a run calls.

Where the two versions speak one protocol, they share purges and, with one format, entries. Where
they do not, the newer one must notice it and cache nothing meanwhile. Nobody may be stale.
"""

import subprocess
import time

from harness.processes import environment
from namespace import TENANT

POISON = "what one client sent"


def writes_reach_both(space):
    """A write through either version is purged in both, while all read and write"""
    old, new = space.pair()
    space.hits(old)
    if space.one_protocol:
        space.hits(new)
    else:
        space.met(new)
    reads = space.race([old, new], space.writes)
    if space.one_protocol:
        for name in ("old", "new"):
            space.check(f"the {name} one served hits", reads.get(f"{name} HIT", 0) > 0, reads)
        return
    served = {kind: count for kind, count in reads.items()
              if kind.startswith("new ") and kind != "new BYPASS"}
    space.check("the newer one served nothing of the cache", not served, served)
    space.check("its answers say why", "cache unavailable" in new.client().read("hit").why)
    space.check("its log says why", "another protocol" in new.log())
    space.check("a metric counts it", new.metric("sidecache_other_protocols_total") == 1)


def joins_amid_writes(space):
    """A version that starts and ends amid reads and writes makes nothing stale"""
    new = space.start(space.new)
    space.hits(new)
    for turn in range(5):
        old = space.start(space.old, name=f"old-{turn}")
        # From its first moment on, before anybody can have noticed.
        space.race([old, new], max(1, space.writes // 10))
        old.stop()
        space.race([new], max(1, space.writes // 50))
    seconds = space.hits(new)
    space.check("the newer one caches again when the older one is gone", seconds < 30, seconds)


def commands_reach_both(space):
    """Purges by command, of a tag, a URL, or everything, by either version, reach both"""
    old, new = space.pair()
    sides = [old, new]
    space.hits(old)
    if not space.one_protocol:
        space.met(new)
    orders = [("--tag", f"item:{TENANT}:cmd"), ("--tag", f"Items:{TENANT}"),
              ("--url", "URL"), ("--everything", "--yes")]
    for by in sides:
        for order in orders:
            for side in sides:
                side.client().read("cmd")
                side.client().read("cmd")
            number = space.app.change(TENANT, "cmd")
            words = [f"http://127.0.0.1:{by.port}/items/cmd" if word == "URL" else word
                     for word in order]
            by.command("purge", *words)
            # A URL is purged for the host that clients name, and each of these names its own port.
            seen_by = [by] if order[0] == "--url" else sides
            for side in seen_by:
                found = side.client().read("cmd")
                space.check(f"{' '.join(words)} by the {by.name} one, read at the {side.name} one",
                            found.text == str(number), found)


def tags_in_any_case(space):
    """Tags of two tenants: what is written for one is no older for it, in whatever case"""
    old, new = space.pair()
    space.hits(old)
    if not space.one_protocol:
        space.met(new)
    for turn in range(20):
        for by in (old, new):
            for tenant in (TENANT, "umbrella"):
                for side in (old, new):
                    side.client().read("two", tenant)
                number = by.client().write("two", tenant)
                for side in (old, new):
                    found = side.client().read("two", tenant)
                    space.check(f"{turn}: {tenant} by the {by.name} one, at the {side.name} one",
                                found.text == str(number), found)


def entries_stay_apart(space):
    """What one version has stored is never served by another one of another format"""
    old, new = space.pair()
    space.hits(old)
    if space.old.formats == space.new.formats and space.one_protocol:
        old.client().read("mine")
        space.eventually("one format: what the older one stored is a hit of the newer one",
                         lambda: (old.client().read("mine"), new.client().read("mine"))[1].cache
                         == "HIT")
        return
    for one, other in ((old, new), (new, old)):
        item = f"poison-{one.name}"
        space.app.poison[item] = POISON
        first = one.client().read(item)
        space.check(f"the {one.name} one gets it", first.text == POISON, first)
        if one is old:
            again = one.client().read(item)
            space.check("the older one serves it from then on",
                        (again.text, again.cache) == (POISON, "HIT"), again)
        for _ in range(3):
            found = other.client().read(item)
            space.check(f"the {other.name} one does not", found.text == "0", found)
    # Nor does the newer one when it is alone, from memory or from Redis.
    old.stop()
    space.hits(new)
    new.stop()
    new.start()
    space.hits(new)
    found = new.client().read("poison-old")
    space.check("nor when the older one is gone", found.text == "0", found)


def way_back_and_forth(space):
    """Back to the older version and forth again: what was written meanwhile is not older"""
    for memory in ("", '[memory]\nsize = "0"\n'):
        kind = "redis" if memory else "memory"
        side = space.start(space.old, name=f"turn-{kind}", more=memory)
        for turn in range(3):
            for version in (space.old, space.new):
                if side.version is not version or turn:
                    side.stop()
                    side.start(version)
                client, item = side.client(), f"turn-{kind}"
                before = space.app.numbers.get((TENANT, item), 0)
                found = client.read(item)
                space.check(f"{turn}: the {version.name} one begins with the present number",
                            found.text == str(before), found)
                space.hits(side, item)
                number = client.write(item)
                space.check("and sees its own write", client.read(item).text == str(number))
                space.hits(side, item)
        side.stop()


def journals(space):
    """A journal of another format is refused with advice, and one of the same is replayed"""
    for version in (space.old, space.new):
        file = space.processes.folder / f"{version.name}.journal"
        written = b"sidecache-journal 99\nsomething of the future\n"
        file.write_bytes(written)
        file.chmod(0o600)
        rules = space.processes.folder / "refused.toml"
        rules.write_text('listen.address = "127.0.0.1:0"\nadmin.address = "127.0.0.1:0"\n'
                         f'upstream.url = "http://127.0.0.1:{space.app.port}"\n'
                         f'redis.url = "redis://127.0.0.1:{space.redis_port}/0"\n'
                         f'redis.journal = "{file}"\n')
        done = subprocess.run([str(version.program), "--config", str(rules)], env=environment(),
                              capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        space.check(f"the {version.name} one refuses it", done.returncode != 0, said)
        space.check("and says what to do", "version" in said and str(file) in said, said)
        space.check("and leaves it as it is", file.read_bytes() == written)
    kept = space.processes.folder / "kept.journal"
    side = space.start(space.old, name="journal", more=f'journal = "{kept}"\n')
    space.hits(side, "kept")
    space.stop_redis()
    number = side.client().write("kept")
    side.stop("kill")
    space.check("the purge is in the journal", b"kept" in kept.read_bytes())
    space.start_redis()
    side.start(space.new)
    found = side.client().read("kept")
    space.check("the newer one does not serve what it ends", found.text == str(number), found)
    space.hits(side, "kept")
    space.check("nor later", side.client().read("kept").text == str(number))


def snapshots(space):
    """A snapshot of another format is a miss, and no fault"""
    file = space.processes.folder / "kept.snapshot"
    side = space.start(space.new, name="snapshot")
    side.rules = side.rules.replace("[fields]", f'[memory]\nsnapshot = "{file}"\n\n[fields]')
    side.stop()
    side.start()
    space.hits(side)
    side.stop()
    bytes_kept = bytearray(file.read_bytes())
    space.check("it begins as the page of the format says", bytes_kept[:5] == b"SCMEM")
    bytes_kept[5] += 1
    file.write_bytes(bytes_kept)
    space.ask_redis("FLUSHALL")
    number = space.app.change(TENANT, "hit")
    side.start()
    found = side.client().read("hit")
    space.check("nothing of it is served",
                (found.cache, found.text) == ("MISS", str(number)), found)
    space.hits(side)
    side.stop()
    done = subprocess.run([str(space.old.program), "check", "--config", str(side.file)],
                          env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stdout + done.stderr
        space.check("a key that only the newer version knows is an error",
                    done.returncode == 64 and "snapshot" in said, said)
        return
    # The older one knows snapshots as well, and restores only what it can prove.
    side.start()
    space.hits(side)
    side.stop()
    number = space.app.change(TENANT, "hit")
    space.ask_redis("FLUSHALL")
    side.start(space.old)
    found = side.client().read("hit")
    space.check("the older one serves nothing that Redis does not prove",
                found.text == str(number), found)


def rolls_out_switched_off(space):
    """The roll-out by `mode = "off"`, step by step, serves nothing from the cache until its end"""
    sides = [space.start(space.old, name=name) for name in ("first", "second")]
    for side in sides:
        space.hits(side)
    began = time.monotonic()
    for side in sides:
        side.write_file('mode = "off"')
    for side in sides:
        space.eventually(f"{side.name} passes all requests",
                         lambda side=side: side.client().read("hit").cache == "BYPASS")
    space.count("ms until all requests pass", round(1000 * (time.monotonic() - began)))
    for side in sides:
        side.stop()
        side.version = space.new
        side.write_file('mode = "off"')
        program = side.version.program
        space.processes.start(side.name, [program, "--config", side.file], environment(),
                              r'"listening"')
        side.child = space.processes.running[-1]
        reads = space.race(sides, max(1, space.writes // 10))
        space.check("nothing is served from the cache",
                    all(kind.endswith("BYPASS") for kind in reads), reads)
    sides[0].command("purge", "--everything", "--yes")
    for side in sides:
        side.write_file('mode = "on"')
    for side in sides:
        space.hits(side)
    space.race(sides, max(1, space.writes // 10))


ALL = [writes_reach_both, joins_amid_writes, commands_reach_both, tags_in_any_case,
       entries_stay_apart, way_back_and_forth, journals, snapshots, rolls_out_switched_off]
