"""A stand-in for the Hugging Face hub on a local port: as much of its API as a snapshot download uses."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Serves directories as commits of model repositories. What is published must not change."""

    def __init__(self) -> None:
        self._commits: dict[str, dict[str, Path]] = {}
        self._main: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        """(method, path) of every request, in order."""
        self.broken: set[str] = set()
        """Names of files that are refused."""
        self.cut: set[str] = set()
        """Names of files in the middle of which the connection is reset."""
        self.resets = False
        """Every connection, before it has an answer."""
        self.url = ""

    def publish(self, repo: str, directory: Path) -> None:
        """As a commit of ``repo``, to which its branch ``main`` moves."""
        commit = hashlib.sha1("".join(map(_oid, _files(directory))).encode()).hexdigest()
        self._commits.setdefault(repo, {})[commit] = directory
        self._main[repo] = commit

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process that shall use this hub, keeping its cache in ``home``."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def fetched(self) -> set[str]:
        """Names of the files that were asked for so far."""
        return {
            path.rpartition("/")[2]
            for method, path in self.requests
            if "/resolve/" in path and method == "GET"
        }

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        match [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]:
            case ["api", "models", owner, name, kind, revision]:
                return self._describe(f"{owner}/{name}", kind, revision)
            case [owner, name, "resolve", revision, *file]:
                return self._file(f"{owner}/{name}", revision, "/".join(file))
        return _error(404, "RepoNotFound", "Repository not found")

    def _describe(self, repo: str, kind: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        if repo not in self._commits:
            return _error(404, "RepoNotFound", "Repository not found")
        commit = self._main[repo] if revision == "main" else revision
        if commit not in self._commits[repo]:
            return _error(404, "RevisionNotFound", "Revision not found")
        directory = self._commits[repo][commit]
        names = [path.relative_to(directory).as_posix() for path in _files(directory)]
        content: Any = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
        if kind == "tree":
            content = [_entry(directory, name) for name in names]
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def _file(self, repo: str, commit: str, name: str) -> tuple[int, dict[str, str], bytes]:
        path = self._commits[repo][commit] / name
        if name in self.broken:
            return _error(403, "Refused", "Refused")
        if not path.is_file():
            return _error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(path)}"', "Accept-Ranges": "bytes"}
        return 200, headers, path.read_bytes()


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers until the context ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append((self.command, self.path))
            if hub.resets:
                self._reset()
                return
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET" and self.path.rpartition("/")[2] in hub.cut:
                self.wfile.write(body[: len(body) // 2])
                self._reset()
            elif self.command == "GET":
                self.wfile.write(body)

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # the server would end it in a kinder way
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests look at ``requests``."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _error(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode()


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _entry(directory: Path, name: str) -> dict[str, Any]:
    path = directory / name
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _oid(path)}


def _oid(path: Path) -> str:
    """As git names a blob."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
