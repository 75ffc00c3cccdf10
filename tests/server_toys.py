"""A server on loopback that counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback, whole files and ranges, and remembers what it was asked for.

    Attributes:
        sent: bytes of all answers.
        asked: path, and range if any, of every request.
        broken: paths that are answered with an error.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent, self.asked, self.broken = folder, 0, [], set()

    @property
    def url(self) -> str:
        """Of the folder, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name, part = self.path.partition("?")[0], self.headers.get("Range")
        self.server.asked.append((name, part))
        path = self.server.folder / name.lstrip("/")
        if name in self.server.broken or not path.is_file():
            self._send(500 if name in self.server.broken else 404, b"")
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", part or "")
        if not found:
            self._send(200, data)
            return
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        self._send(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

    def _send(self, code: int, body: bytes, place: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if place:
            self.send_header("Content-Range", place)
        self.end_headers()
        if self.command == "GET":
            self.server.sent += len(body)
            self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A running server of a folder."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
