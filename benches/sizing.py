#!/usr/bin/env python3
"""What memory a sidecar and its Redis take for what they store.

usage: benches/sizing.py SIDECACHE [SIZE_MIB]

Needs redis-server. For bodies of 1, 10 and 100 kB: fills [memory] of SIZE_MIB (64) twice over, and
prints the memory of the process beside the size, and the bytes of Redis for each entry. Ends all that
it has started.
"""

import http.client
import socket
import subprocess
import sys
import tempfile
import threading
import time

APP = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.path.split("/")[2])
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(self.path.encode().ljust(length, b"x"))
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

CONFIG = """
[listen]
address = "127.0.0.1:{listen}"
[admin]
address = "127.0.0.1:{admin}"
[upstream]
url = "http://127.0.0.1:{app}"
[memory]
size = "{size}MiB"
[redis]
url = "redis://127.0.0.1:{redis}/0"
secret = "0123456789abcdef"
[log]
access = false
[[routes]]
path  = "/v/{{length}}/{{id}}"
ttl   = "1h"
scope = "public"
tags  = ["v:{{id}}"]
"""

CLIENTS = 4
QUIET = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def fetch(port, length, numbers):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    for number in numbers:
        connection.request('GET', f'/v/{length}/{number}')
        connection.getresponse().read()
    connection.close()


def fill(port, length, count):
    parts = [range(start, count, CLIENTS) for start in range(CLIENTS)]
    clients = [threading.Thread(target=fetch, args=(port, length, part)) for part in parts]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def metric(port, name):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    connection.request('GET', '/metrics')
    text = connection.getresponse().read().decode()
    return sum(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if line.split('{')[0].split(' ')[0] == name)


def redis_info(port):
    said = subprocess.run(['redis-cli', '-p', str(port), 'INFO', 'memory'], capture_output=True, text=True, check=True)
    return int(next(line for line in said.stdout.splitlines() if line.startswith('used_memory:')).split(':')[1])


def wait(port):
    for _ in range(300):
        try:
            socket.create_connection(('127.0.0.1', port)).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f'nothing listens on port {port}')


def measure(binary, size, kilobytes):
    ports = {name: free_port() for name in ('listen', 'admin', 'app', 'redis')}
    with tempfile.NamedTemporaryFile('w', suffix='.toml') as file:
        file.write(CONFIG.format(size=size, **ports))
        file.flush()
        commands = [
            [sys.executable, '-c', APP, str(ports['app'])],
            ['redis-server', '--port', str(ports['redis']), '--bind', '127.0.0.1', '--save', ''],
            [binary, '--config', file.name],
        ]
        started = [subprocess.Popen(command, **QUIET) for command in commands]
        try:
            for port in ports.values():
                wait(port)
            empty = metric(ports['admin'], 'process_resident_memory_bytes')
            length = kilobytes * 1000
            count = 2 * size * 1024 * 1024 // (length + 500)
            before = redis_info(ports['redis'])
            fill(ports['listen'], length, count)
            time.sleep(1)
            resident = metric(ports['admin'], 'process_resident_memory_bytes')
            stored = metric(ports['admin'], 'sidecache_memory_bytes')
            each = (redis_info(ports['redis']) - before) / count
        finally:
            for process in started:
                process.terminate()
                process.wait()
    mib = 1024 * 1024
    print(
        f'{kilobytes:4} kB: {count} entries; size {size} MiB, counted {stored / mib:.0f} MiB, '
        f'process {resident / mib:.0f} MiB (empty {empty / mib:.0f}); '
        f'Redis {each:.0f} bytes an entry, {each - length:.0f} beyond its body'
    )


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for kilobytes in (1, 10, 100):
        measure(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 64, kilobytes)


if __name__ == '__main__':
    main()
