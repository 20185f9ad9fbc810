"""Servers on loopback that play the network: a site, and the Hugging Face hub."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

CONTENT = random.Random(0).randbytes(300_000)  # of a page, unless told otherwise


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Page:
    """What lies at one path, and how it is served."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str = ""
    length: bool = True  # whether Content-Length is sent
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    answers: list[int] = field(default_factory=list)  # status codes of the next answers
    pause: float = 0.0  # seconds before each answer
    shift: int = 0  # a broken server: bytes by which a range misses what was asked for
    headers: dict[str, str] = field(default_factory=dict)
    then: "Page | None" = None  # what lies there after the next answer


class Site(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str]] = []  # method and path
        self.ranges: list[str | None] = []  # of the same requests
        self.agents: list[str | None] = []
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        with self:
            thread = threading.Thread(target=self.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield self
            finally:
                self.shutdown()
                thread.join()

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is part of the game."""

    def serve(self, path: str, content: bytes = CONTENT, **how: object) -> str:
        """The URL at which it is from now on."""
        self.pages[path] = Page(content, **how)
        return self.url + path

    def absent(self, path: str) -> dict[str, str]:
        """The headers with which it is told that nothing lies there."""
        return {}


class Answer(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site, asked = self.server, self.headers.get("Range")
        site.requests.append((self.command, self.path))
        site.ranges.append(asked)
        site.agents.append(self.headers.get("User-Agent"))
        site.open.wait(10)
        page = site.pages.get(self.path)
        if page is None:
            return self.head(404, 0, site.absent(self.path))
        time.sleep(page.pause)
        if page.answers and (code := page.answers.pop(0)) != 200:
            return self.head(code, 0, page.headers)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and page.ranges else 0
        if self.headers.get("If-Range", page.etag) != page.etag:
            start = 0  # another version of the file
        if start >= len(page.content) and start:
            return self.head(416, 0, {})
        headers = dict(page.headers)
        if page.etag:
            headers["ETag"] = page.etag
        if start:
            start += page.shift
            headers["Content-Range"] = f"bytes {start}-{len(page.content) - 1}/{len(page.content)}"
        body = page.content[start:]
        self.head(206 if start else 200, len(body) if page.length else None, headers)
        if self.command == "GET":
            self.wfile.write(body[: page.cuts.pop(0)] if page.cuts else body)
        if page.then:
            site.pages[self.path] = page.then
        return None

    def head(self, code: int, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def commit(repository: str, revision: str = "main") -> str:
    return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()


class Hub(Site):
    """A site that plays the hub."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, set[str]] = {}  # repository → revisions

    def hold(self, repository: str, files: Mapping[str, bytes], *, revision: str = "main") -> None:
        """What a repository has at a revision from now on. As on the real hub, large files carry their SHA-256."""
        self.held.setdefault(repository, set()).add(revision)
        known = {"X-Repo-Commit": commit(repository, revision)}
        for name, content in files.items():
            large = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self.serve(
                f"/{repository}/resolve/{revision}/{name}",
                content,
                etag=f'"{hashlib.sha1(content).hexdigest()}"',
                headers=known | (large if name.endswith(".safetensors") else {}),
            )

    def absent(self, path: str) -> dict[str, str]:
        repository, _, rest = path.removeprefix("/").partition("/resolve/")
        revision = rest.partition("/")[0]
        if repository not in self.held:
            return {"X-Error-Code": "RepoNotFound"}
        if revision not in self.held[repository]:
            return {"X-Error-Code": "RevisionNotFound"}
        return {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit(repository, revision)}
