"""URL or hub name → a checked local file. A file that is there already is used without any request."""

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte after which a server is given up
WAITS = (1.0, 3.0, 10.0)  # seconds before each further attempt at what may pass
PASSING = (429, 500, 502, 503, 504)  # answers of a server that may be better next time
CHUNK = 1 << 16
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(\.\w+)+$")  # torch hub's convention: resnet18-f37072fd.pth
LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")
HUB = "https://huggingface.co"


def cache_folder() -> Path:
    """Where fetched files lie: $ZOO_CACHE, or else where torch hub and torchvision keep theirs."""
    if own := os.environ.get("ZOO_CACHE"):
        return Path(own).expanduser().absolute()
    import torch

    return Path(torch.hub.get_dir()).absolute() / "checkpoints"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, *, sha256: str = "") -> Path:
    """The file that a URL names, from the cache folder or else downloaded to it.

    url: https://…, or http:// to this machine or with a hash. sha256: its first 8 or more hexadecimal digits; they may
    also stand behind the URL as #sha256=…, or in the file's name as torch hub has it (resnet18-f37072fd.pth). Without
    any, what came is believed. In the cache a file keeps its name if that ends in its hash; else 8 digits of the hash
    are added, or `url` and 8 digits of the URL's, so that two files called model.pth do not meet.
    Raises ValueError for a URL or hash that cannot be used, for content with another hash and for a web page in its
    place; OSError if nothing came or the cache folder cannot be written to.
    """
    address, folder = understand(url, sha256), cache_folder()
    path = folder / address.file
    try:
        if found := cached(address, folder):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{address.file}.lock"):  # a second process waits here, and then finds the file
            return cached(address, folder) or renew(address, path)
    except NoAnswer as error:
        hint = f"put {address.file} into {folder} by hand, or set ZOO_CACHE to a folder that has it"
        raise OSError(f"{address.url} could not be fetched: {error}; {hint}{damage(path)}") from error
    except OSError as error:
        fault = f"the cache folder {folder} cannot be used: {error.strerror or error}"
        raise OSError(f"{fault}; set ZOO_CACHE to a folder with room that can be written to{damage(path)}") from error


class NoAnswer(Exception):
    """A server did not send a file, for the reason given. passing: it may do so next time. status: of HTTP."""

    def __init__(self, reason: str, *, passing: bool = False, status: int = 0) -> None:
        super().__init__(reason)
        self.passing, self.status = passing, status


@dataclass(frozen=True)
class Address:
    """What a URL says about its file. sha256: its first digits, or nothing; given: not just by the file's name."""

    url: str
    name: str  # as the server has it
    file: str  # as the cache has it
    sha256: str
    given: bool


def understand(url: str, sha256: str) -> Address:
    """Raises ValueError for what is no URL of a file, or not safe, or has no hash where one was meant."""
    page, _, fragment = url.partition("#")
    given = given_hash(url, sha256, fragment)
    check_scheme(page, protected=len(given) == 64)  # fewer digits can be met by a forged file
    path = urlsplit(page).path
    name = unquote(path.rpartition("/")[2])
    if not name or name.startswith(".") or re.search(r"[/\\:\x00-\x1f]", name):
        raise ValueError(f"{page} does not end in a file's name")
    found = HASH_IN_NAME.search(name)
    if found and agree(found[1], given):
        return Address(page, name, name, max(found[1], given, key=len), bool(given))
    mark = given[:8] or "url" + hashlib.sha256(page.encode()).hexdigest()[:8]
    return Address(page, name, f"{Path(name).stem}-{mark}{Path(name).suffix}", given, bool(given))


def given_hash(url: str, argument: str, fragment: str) -> str:
    if fragment and not fragment.startswith("sha256="):
        raise ValueError(f"{url}: only #sha256=… is understood after a URL, not #{fragment}")
    told = [argument.lower()] * bool(argument) + [fragment.removeprefix("sha256=").lower()] * bool(fragment)
    for digits in told:
        if not re.fullmatch(r"[0-9a-f]{8,64}", digits):
            raise ValueError(f"{url}: a SHA-256 is 8 to 64 hexadecimal digits, not {digits!r}")
    if len(told) == 2 and not agree(*told):
        raise ValueError(f"{url} contradicts sha256={argument}: leave out the one that is wrong")
    return max(told, key=len, default="")


def agree(first: str, second: str) -> bool:
    """Whether one is the beginning of the other."""
    return first.startswith(second) or second.startswith(first)


def check_scheme(url: str, *, protected: bool, origin: str = "") -> None:
    """ValueError for what anyone on the way could have changed unseen. origin: what redirected here."""
    parts = urlsplit(url)
    told = f"{origin} redirects to {url}, which" if origin else url
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{told} is not an https:// address of a file")
    here = all(LOOPBACK.fullmatch(urlsplit(each).hostname or "") for each in (url, origin or url))
    if parts.scheme == "http" and not protected and not here:
        raise ValueError(f"{told} is not protected on its way: use https://, or give its hash (#sha256=…)")


def cached(address: Address, folder: Path) -> Path | None:
    """The whole file in the cache. Where the hash is known, torch hub's own name for it is looked for too."""
    for name in (address.file, address.name) if address.sha256 else (address.file,):
        path = folder / name
        if path.is_file() and (not address.sha256 or digest(path).startswith(address.sha256)):
            return path
    return None


def damage(path: Path) -> str:
    """For the end of an error. A file that is still there then has not passed the check."""
    return f" ({path} is there, but damaged or unreadable)" if os.path.isfile(path) else ""


def renew(address: Address, path: Path) -> Path:
    """Downloads to `path`, which changes only when the whole right file is there."""
    if path.is_file():
        log.warning("%s is damaged: its SHA-256 does not begin with %s; fetching it anew", path, address.sha256)
    part = path.with_name(path.name + ".part")
    if receive(address, part) and not digest(part).startswith(address.sha256):
        log.warning("%s: what was resumed does not fit together; starting again from zero", address.file)
        part.unlink()
        receive(address, part)
    with part.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        part.unlink()
        raise ValueError(f"{address.url} gave a web page instead of a file: open it in a browser to see{damage(path)}")
    found = digest(part)
    if not found.startswith(address.sha256):
        part.unlink()
        hint = "" if address.given else "; if the digits in its name are not a hash, give the right one as #sha256=…"
        fault = f"{address.url} has the SHA-256 {found}, not {address.sha256} as expected"
        raise ValueError(f"{fault}{hint}{damage(path)}")
    os.replace(part, path)
    log.info("fetched %s%s", address.file, "" if address.sha256 else f", which had no hash to check; SHA-256: {found}")
    return path


def receive(address: Address, part: Path) -> bool:
    """Downloads to `part` until it is complete, in several attempts. Whether it was put together from pieces.

    A part from an earlier process is continued only where a hash will tell whether the pieces belong together.
    """
    download = Download(address, part)
    for wait in (*WAITS, None):
        try:
            download.attempt()
            break
        except NoAnswer as error:
            if wait is None or not error.passing:
                raise
            log.warning("%s: %s; trying again in %g s", address.file, error, wait)
            time.sleep(wait)
    return download.resumed


class Download:
    """Attempts to fill one .part file, and what they have learnt of the server."""

    def __init__(self, address: Address, part: Path) -> None:
        self.address, self.part = address, part
        self.etag = ""  # the server's name for this version of the file
        self.resumed = False

    def attempt(self) -> None:
        """One request, from where the part ends. Raises NoAnswer; what came until then stays."""
        known = self.part.is_file() and (self.address.sha256 or self.etag)
        start = self.part.stat().st_size if known else 0
        try:
            response = self.ask(start)
        except NoAnswer as error:
            if not start or error.status != 416:
                raise
            start = 0  # the part is as long as the file or longer: it is not of this file
            response = self.ask(start)
        with response:
            if response.status != 206:
                start = 0  # the whole file, whatever was asked for
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.part.unlink(missing_ok=True)
                raise NoAnswer("the server sent another piece than was asked for", passing=True)
            self.resumed |= start > 0
            self.write(response, start)

    def ask(self, start: int) -> HTTPResponse:
        headers = {"User-Agent": "cnn-zoo"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": self.etag} if self.etag else {})
        parts = urlsplit(self.address.url)
        safe = "%/:=&?~+!$,;'@()*[]"
        url = parts._replace(path=quote(parts.path, safe=safe), query=quote(parts.query, safe=safe)).geturl()
        try:
            return build_opener(Redirects(self.address)).open(Request(url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            reason = " ".join(f"the server answered {error.code} {error.reason}".split())
            raise NoAnswer(reason, passing=error.code in PASSING, status=error.code) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise NoAnswer(in_words(error), passing=isinstance(error, ConnectionResetError)) from error

    def write(self, response: HTTPResponse, start: int) -> None:
        etag = response.headers.get("ETag", "")
        self.etag = "" if etag.startswith("W/") else etag  # a weak one does not promise the same bytes
        total = None if response.length is None else start + response.length
        there = f", from {megabytes(start)} on" if start else ""
        log.info("fetching %s (%s%s) to %s", self.address.file, megabytes(total), there, self.part.parent)
        with self.part.open("ab" if start else "wb") as file:
            for chunk in chunks(response):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise NoAnswer(f"the connection was cut off after {size} of {total} bytes", passing=True)
        if not size:
            raise NoAnswer("the server sent an empty file")


def megabytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB"


def chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise NoAnswer(f"the connection was cut off: {in_words(error)}", passing=True) from error


class Redirects(HTTPRedirectHandler):
    """Follows only to where the file may come from."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def redirect_request(self, *args: Any) -> Request | None:
        check_scheme(args[-1], protected=self.address.given and len(self.address.sha256) == 64, origin=self.address.url)
        return super().redirect_request(*args)


def in_words(error: BaseException) -> str:
    """Why a connection failed, on one line."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, BaseException) else error
    if isinstance(cause, socket.gaierror):
        return "the host's name was not found (is there a network?)"
    if isinstance(cause, TimeoutError):
        return f"nothing came for {TIMEOUT:g} s"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    return " ".join(str(cause).split()) or type(cause).__name__


def fetch_hub(repo: str, name: str, *, revision: str | None = None) -> Path:
    """A file of a model repository ("org/name") on the Hugging Face hub, in the hub's own cache (HF_HOME).

    revision: a branch, tag or commit; None for main. What was fetched before, or found absent, is not asked for again,
    even if the branch has moved on. Large files carry their SHA-256, which is checked every time.
    Raises FileNotFoundError if the repository has no such file, OSError if it could not be fetched for another reason,
    ValueError for a malformed name or a damaged file.
    """
    try:
        path, etag = from_hub(repo, name, revision)
    except Exception as error:  # of the hub's library, its HTTP library or the system: no common ancestor
        raise hub_error(error, repo, name, revision) from error
    # The cache's entry is a link to a file that is called by its hash; without links, the server's word is left.
    expected = Path(os.readlink(path)).name if path.is_symlink() else etag
    if re.fullmatch(r"[0-9a-f]{64}", expected) and (found := digest(path)) != expected:
        fault = f"{name} of {repo} is damaged: its SHA-256 is {found}, not {expected}"
        raise ValueError(f"{fault}; delete {path.resolve()} and it is fetched anew")
    return path


def from_hub(repo: str, name: str, revision: str | None) -> tuple[Path, str]:
    """The file, and the server's name for its content if the server was asked."""
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    known, etag = hub.try_to_load_from_cache(repo, name, revision=revision), ""
    if isinstance(known, str):
        return Path(known), ""
    if known is not None:  # the library's mark for what the repository was found not to have
        raise errors.EntryNotFoundError(name)
    with suppress(errors.EntryNotFoundError):  # hf_hub_download meets it too, and leaves that mark
        # Asked here first, since hf_hub_download tries for half a minute before it says that there is no network.
        facts = hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, revision=revision))
        etag = facts.etag or ""
        log.info("fetching %s of %s (%s) to %s", name, repo, megabytes(facts.size), constants.HF_HUB_CACHE)
    return Path(hub.hf_hub_download(repo, name, revision=revision)), etag


def hub_error(error: Exception, repo: str, name: str, revision: str | None) -> Exception:
    """One line for what the hub's library raised."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # a request failed: not the same as an absent file
        error = error.__cause__ or OSError(str(error))
    what = f"{name} of {repo} (revision {revision or 'main'})"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, errors.EntryNotFoundError):
        return FileNotFoundError(f"{what} does not exist: the repository has no such file; see {HUB}/{repo}")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ValueError(f"{what} cannot be asked for: {line}")
    if isinstance(error, OSError) and error.errno:
        line = f"the cache folder {constants.HF_HUB_CACHE} cannot be used: {error.strerror} (HF_HOME sets another)"
    reasons = {
        errors.GatedRepoError: f"its terms must be accepted at {HUB}/{repo}, and `hf auth login` be run",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private and needs `hf auth login`",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.OfflineModeIsEnabled: "it is not in the cache, and HF_HUB_OFFLINE forbids requests",
    }
    reason = next((told for kind, told in reasons.items() if isinstance(error, kind)), line)
    hint = f"by hand: download {HUB}/{repo}/resolve/{revision or 'main'}/{name} and give the file's path instead"
    return OSError(f"{what} could not be fetched: {reason}; {hint}")
