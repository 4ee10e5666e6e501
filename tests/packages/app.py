"""The app of tests/packages.mjs: counts its answers, and says where it listens."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    """Answers every GET with how many it has had."""

    protocol_version = 'HTTP/1.1'
    answers = 0

    def do_GET(self):
        App.answers += 1
        body = json.dumps({'path': self.path, 'answer': App.answers}).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(('127.0.0.1', 0), App)
print(f'port {server.server_port}', flush=True)
server.serve_forever()
