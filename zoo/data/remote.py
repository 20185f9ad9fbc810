"""Files of a folder of this machine, of a web server, or of object storage."""

import logging
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from zoo.fetch import TIMEOUT, WAITS

ANSWERS = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}

logger = logging.getLogger(__name__)


class Place:
    """A folder, or the URL of one: https://…, or s3://… and whatever else fsspec reads.

    Behind a ? may stand what lets one in: it goes to the end of each file's URL, and is not shown. `folder`: None for a
    URL.
    """

    def __init__(self, root: str) -> None:
        self.folder = None if "://" in root else Path(root).expanduser()
        page, mark, query = root.partition("?") if self.folder is None else (root, "", "")
        self._page, self._query = page.rstrip("/"), mark + query

    def __str__(self) -> str:
        return self._page

    def text(self, name: str) -> str:
        """A file's text. Raises as `bring`, and UnicodeDecodeError."""
        if self.folder is not None:
            return (self.folder / name).read_text(encoding="utf-8")
        with TemporaryDirectory(prefix="zoo-") as folder:
            self.bring(name, Path(folder) / name, check=lambda _: None)
            return (Path(folder) / name).read_text(encoding="utf-8")

    def bring(self, name: str, path: Path, check: Callable[[Path], None]) -> None:
        """Copies a file here, in several attempts, until `check` raises no ValueError.

        Raises that, FileNotFoundError, PermissionError, OSError if nothing came, ModuleNotFoundError or ValueError
        where nothing is known of such URLs.
        """
        url = f"{self._page}/{name}{self._query}"
        copy = over_http if url.startswith(("http://", "https://")) else self._by_fsspec(url)
        for wait in (*WAITS, None):
            try:
                copy(url, path)
                check(path)
                return
            except (OSError, HTTPException, ValueError) as error:
                told = f"{self}/{name} could not be read: {' '.join(str(error).split()) or type(error).__name__}"
                if isinstance(error, FileNotFoundError | PermissionError):  # which will not pass
                    raise type(error)(told) from error
                if wait is None and isinstance(error, ValueError):
                    raise
                if wait is None:
                    raise OSError(told) from error
                logger.warning("%s; trying again in %g s", told, wait)
            time.sleep(wait)

    def _by_fsspec(self, url: str) -> Callable[[str, Path], None]:
        try:
            import fsspec

            system, place = fsspec.url_to_fs(url)
        except ImportError as error:
            hint = 's3:// comes with pip install "cnn-zoo[stream]"'
            raise ModuleNotFoundError(f"{self} cannot be read: {error}; {hint}") from error
        except ValueError as error:
            raise ValueError(f"{self} cannot be read: {error}") from error
        return lambda _, path: system.get_file(place, str(path))


def over_http(url: str, path: Path) -> None:
    """Raises OSError, HTTPException; what a server breaks off is not noticed."""
    try:
        request = Request(url, headers={"User-Agent": "cnn-zoo"})
        with urlopen(request, timeout=TIMEOUT) as response, path.open("wb") as file:
            copyfileobj(response, file, 1 << 20)
    except HTTPError as error:
        error.close()
        told = f"the server answered {error.code} {error.reason}"
        raise ANSWERS.get(error.code, OSError)(told) from error
