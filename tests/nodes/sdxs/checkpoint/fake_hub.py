"""A hub of one's own: the routes of the Hugging Face hub that fetching a model uses.

python fake_hub.py ROOT     serves ROOT/owner/name/…; prints its port
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "cafe"
LARGE = 2_000
"""Files of this many bytes are stored apart, and known by their SHA-256."""


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories.

    Attributes:
        root: `owner/name` folders.
        commit: At which all of them are.
        licence: What all cards say.
        damaged: Files whose contents are changed on the way.
        cut: Files that break off after so many bytes, once.
        asked: What was asked for, as (method, path) with the first byte of a range.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.commit = COMMIT
        self.licence = "openrail++"
        self.damaged: set[str] = set()
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, str, int]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> Counter[str]:
        """How often each file's contents were asked for."""
        return Counter(path for method, path, _ in self.asked if method == "GET" and path)


def etag(content: bytes) -> str:
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._about(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._send(404, b"{}", {})

    def _about(self, name: str, revision: str | None) -> None:
        folder = self.server.root / name
        if not folder.is_dir():
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in (None, "main", self.server.commit):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings: list[dict[str, Any]] = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content = path.read_bytes()
            told = {"rfilename": str(path.relative_to(folder)), "size": len(content)}
            if len(content) >= LARGE:
                told["lfs"] = {"sha256": etag(content), "size": len(content), "pointerSize": 130}
                told["blobId"] = "0" * 40
            else:
                told["blobId"] = etag(content)
            siblings.append(told)
        about = {
            "id": name,
            "sha": self.server.commit,
            "siblings": siblings,
            "tags": [f"license:{self.server.licence}"],
            "cardData": {"license": self.server.licence},
        }
        self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str) -> None:
        path = self.server.root / name / file
        commit = self.server.commit
        if revision not in ("main", commit) or not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if file in self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.server.asked.append((self.command, file, start))
        stop = None
        if self.command == "GET":
            stop = self.server.cut.pop(file, None)
        self._send(206 if start else 200, content[start:], headers, stop=stop)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, stop: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:stop])
        if stop is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def log_message(self, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    hub = Hub(Path(sys.argv[1]))
    print(hub.server_port, flush=True)
    threading.Event().wait()
