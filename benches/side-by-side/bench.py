#!/usr/bin/env python3
"""Caching proxies side by side: each server on CPU 0, origin, Redis and load on CPU 1.

Prints, for each peer and workload, the median over rounds of requests per second, requests per
second of the server's own CPU time with the least and the most of a round, p50 and p99 latency, and
the memory that the server takes at the end (PSS). Rounds interleave the peers, so that drift of the
machine falls on all alike.

  bench.py [--peers a,b] [--loads hot1k,spread1k,...] [--rounds 3] [--seconds 5] [--ours BIN]
"""
import argparse, json, os, re, shutil, signal, statistics, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ.get("BENCH_TARGET", HERE / "target")) / "release"  # CARGO_TARGET_DIR of bare-hyper
DIR = Path(tempfile.mkdtemp(prefix="bench-"))
os.chmod(DIR, 0o755)
PORTS = {}

LOADS = {  # name: (path, connections, arguments of spread.lua: how many objects of which size)
    "hot1k": ("/obj/1k/1", 64, None),
    "hot10k": ("/obj/10k/1", 64, None),
    "hot100k": ("/obj/100k/1", 64, None),
    "spread1k": ("/", 64, ["10000", "1k"]),
    "spread10k": ("/", 64, ["10000", "10k"]),
    "thousand1k": ("/", 64, ["1000", "1k"]),
    "million1k": ("/", 64, ["1000000", "1k"]),
    "h2": ("/obj/1k/1", 8, None),  # HTTP/2 without TLS, 10 streams on each connection, by h2load
    "pass1k": ("/pass/1", 64, None),
    "one1k": ("/obj/1k/1", 1, None),
}


# At least so many objects are stored in a second, while the caches are filled.
FILLS = 10_000
# Those of which HTTP/1 and HTTP/2 have ports of their own: the latter is this much above.
APART, H2_APART = ("nginx", "haproxy"), 500
H1_ONLY = ("bare-hyper", "nginx-redis", "varnish")


def conf(name, port):
    text = (HERE / name).read_text().replace("@DIR@", str(DIR)).replace("@PORT@", str(port))
    text = text.replace("@H2_PORT@", str(port + H2_APART))
    path = DIR / name
    path.write_text(text)
    return str(path)


def spawn(cpu, *argv):
    log = open(DIR / f"{Path(argv[0]).name}-{time.time_ns()}.log", "w")
    return subprocess.Popen(["taskset", "-c", str(cpu), *argv], stdout=log, stderr=log, start_new_session=True)


def ours(binary, redis, extra=""):
    def start(port):
        template = (HERE / ("ours-redis.toml" if redis else "ours-memory.toml")).read_text()
        path = DIR / f"ours-{port}.toml"
        path.write_text(template.replace("@PORT@", str(port)).replace("@ADMIN@", str(port + 1000)))
        return spawn(0, *binary.split(), *HERE.joinpath("ours.args").read_text().replace("@CONF@", str(path)).split())
    return start


def peers(args):
    all_ = {
        "bare-hyper": lambda p: spawn(0, str(BIN / "bare-hyper"), f"127.0.0.1:{p}", "1024"),
        "nginx": lambda p: spawn(0, "nginx", "-c", conf("nginx-cache.conf", p)),
        "varnish": lambda p: spawn(0, "varnishd", "-F", "-n", str(DIR / "v"), "-a", f"127.0.0.1:{p}", "-f", conf("varnish.vcl", p),
                                   "-s", "malloc,2g", "-p", "thread_pools=1", "-p", "thread_pool_min=100"),
        "haproxy": lambda p: spawn(0, "haproxy", "-db", "-f", conf("haproxy.cfg", p)),
        "nginx-redis": lambda p: spawn(0, "nginx", "-c", conf("nginx-redis.conf", p)),
    }
    if args.ours:
        all_["ours"] = ours(args.ours, False)
        all_["ours-redis"] = ours(args.ours, True)
    names = args.peers.split(",") if args.peers else list(all_)
    return {n: all_[n] for n in names}


def tree(pid):
    pids, todo = [], [pid]
    while todo:
        p = todo.pop()
        pids.append(p)
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                todo += [int(c) for c in Path(f"/proc/{p}/task/{t}/children").read_text().split()]
        except OSError:
            pass
    return pids


def cpu(pid):
    total = 0
    for p in tree(pid):
        try:
            f = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(f[11]) + int(f[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def rss(pid):
    kib = 0
    for p in tree(pid):
        try:
            kib += int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{p}/smaps_rollup").read_text()).group(1))
        except (OSError, AttributeError):
            pass
    return kib / 1024


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as r:
        r.read()
        return dict((k.lower(), v) for k, v in r.headers.items())


def wait(port):
    for _ in range(600):
        try:
            return get(port, "/obj/1k/1")
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers on {port}; logs in {DIR}")


def h2load(name, load, seconds):
    path, conns, _ = LOADS[load]
    port = PORTS[name] + (H2_APART if name in APART else 0)
    out = subprocess.run(["taskset", "-c", "1", "h2load", f"-c{conns}", "-m10", f"-D{seconds}", f"http://127.0.0.1:{port}{path}"],
                         capture_output=True, text=True).stdout
    done, failed = (int(re.search(rf"(\d+) {what}", out).group(1)) for what in ("2xx", "failed"))
    return {"rps": done / seconds, "p50": float("nan"), "p99": float("nan"), "n": done, "bad": failed, "errs": ""}


def wrk(name, load, seconds, fill=False):
    path, conns, script = LOADS[load]
    port = PORTS[name]
    cmd = ["taskset", "-c", "1", "wrk", "-t1", f"-c{conns}", f"-d{seconds}s", "--latency"]
    url = f"http://127.0.0.1:{port}{path}"
    cmd += ["-s", str(HERE / "spread.lua"), url, "--", *script, *(["fill"] if fill else [])] if script else [url]
    out = subprocess.run(cmd, capture_output=True, text=True).stdout
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    def lat(q):
        m = re.search(rf"{q}%\s+([\d.]+)(us|ms|s)", out)
        return float(m.group(1)) * unit[m.group(2)] if m else float("nan")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errs = re.search(r"Socket errors: (.*)", out)
    return {"rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), "p50": lat(50), "p99": lat(99),
            "n": int(re.search(r"(\d+) requests in", out).group(1)), "bad": int(bad.group(1)) if bad else 0, "errs": errs.group(1) if errs else ""}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--peers"); ap.add_argument("--loads", default="hot1k,hot10k,spread1k,pass1k,one1k")
    ap.add_argument("--rounds", type=int, default=3); ap.add_argument("--seconds", type=int, default=5)
    ap.add_argument("--ours"); ap.add_argument("--json")
    args = ap.parse_args()
    www = DIR / "www"; www.mkdir()
    for name, size in (("1k", 1024), ("10k", 10240), ("100k", 102400)):
        (www / f"{name}.json").write_text(json.dumps({"pad": "x" * (size - 11)}))
    procs = [spawn(1, "nginx", "-c", conf("origin.nginx.conf", 0)),
             spawn(1, "redis-server", "--port", "16379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(DIR))]
    running = {}
    try:
        wait(18000)
        for i, (name, start) in enumerate(peers(args).items()):
            PORTS[name] = 18100 + i
            running[name] = start(PORTS[name])
            wait(PORTS[name])
        rows = {}
        loads = args.loads.split(",")
        for load in loads:  # fill the caches
            if LOADS[load][2]:
                for name in running:
                    wrk(name, load, 1 + int(LOADS[load][2][0]) // FILLS, fill=True)
        for _ in range(args.rounds):
            for load in loads:
                for name, proc in running.items():
                    if name == "bare-hyper" and load not in ("hot1k", "one1k") or name in H1_ONLY and load == "h2":
                        continue
                    before = cpu(proc.pid)
                    r = (h2load if load == "h2" else wrk)(name, load, args.seconds)
                    r["per_cpu"] = r["n"] / max(cpu(proc.pid) - before, 1e-3)
                    rows.setdefault((load, name), []).append(r)
        med = lambda rs, k: statistics.median(r[k] for r in rs)
        print(f"{'load':10} {'peer':12} {'req/s':>9} {'req/cpu-s':>10} {'least':>8} {'most':>8} {'p50 ms':>8} {'p99 ms':>8} {'bad':>6} {'PSS MiB':>8}")
        table = []
        for (load, name), rs in rows.items():
            row = dict(load=load, peer=name, rps=med(rs, "rps"), per_cpu=med(rs, "per_cpu"),
                       least=min(r["per_cpu"] for r in rs), most=max(r["per_cpu"] for r in rs), p50=med(rs, "p50"), p99=med(rs, "p99"),
                       bad=sum(r["bad"] for r in rs), pss=rss(running[name].pid), errs=[r["errs"] for r in rs if r["errs"]])
            table.append(row)
            print(f"{load:10} {name:12} {row['rps']:9.0f} {row['per_cpu']:10.0f} {row['least']:8.0f} {row['most']:8.0f} {row['p50']:8.3f} {row['p99']:8.3f} {row['bad']:6d} {row['pss']:8.1f} {row['errs'] or ''}")
        if args.json:
            Path(args.json).write_text(json.dumps(table, indent=1))
    finally:
        for p in [*running.values(), *procs]:
            try:
                os.killpg(p.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        time.sleep(0.5)
        shutil.rmtree("/dev/shm/bench-nginx", ignore_errors=True)


main()
