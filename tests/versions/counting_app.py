"""An app whose contents change with each write: every item is a number that counts its writes."""

import http.server
import re
import threading


class CountingApp:
    """`GET /items/ID` tells the number, `PUT /edits/ID` raises it and tells the new one."""

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = {}
        # What one fill gets in place of the number, by item: what should never be given to others.
        self.poison = {}
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                app.answer(self)

            def do_PUT(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                app.answer(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def change(self, tenant, item):
        """A write that no sidecar sees."""
        with self.lock:
            self.numbers[tenant, item] = self.numbers.get((tenant, item), 0) + 1
            return self.numbers[tenant, item]

    def answer(self, request):
        tenant = request.headers.get("x-tenant", "")
        item = re.fullmatch(r"/(?:items|edits)/([^/?]+)", request.path)[1]
        if request.command == "PUT":
            text = str(self.change(tenant, item))
        else:
            with self.lock:
                text = self.poison.pop(item, None) or str(self.numbers.get((tenant, item), 0))
        body = text.encode()
        request.send_response(200)
        request.send_header("content-type", "text/plain")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
