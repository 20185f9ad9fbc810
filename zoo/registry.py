"""Names → builders. Knows nothing of what is built."""

import difflib
import fnmatch
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = inspect.Parameter.empty  # the default of an option that has none


@dataclass(frozen=True)
class Entry:
    """One registered name: what builds it, the row of options that makes this variant, and what is declared of it."""

    name: str
    builder: Callable[..., Any]
    row: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def family(self) -> str:
        """The file that it is written in."""
        return self.builder.__module__.rpartition(".")[2]

    @property
    def options(self) -> dict[str, Any]:
        """Every keyword-only argument with its default; the row's values replace the constructor's."""
        keywords = inspect.signature(self.builder).parameters.values()
        return {p.name: self.row.get(p.name, p.default) for p in keywords if p.kind is p.KEYWORD_ONLY}

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The row with `options` laid over it. Raises TypeError for an option that the builder does not have."""
        known = self.options
        for option in options:
            if option not in known:
                raise TypeError(f"{self.name} has no option {option!r}{suggest(option, known)}")
        return {**self.row, **options}


class Registry:
    """A dictionary that refuses duplicates and suggests on misses.

    `kind` is the noun for messages: "backbone", "criterion", "data set".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, builder: Callable[..., Any] | None = None, /, **facts: Any) -> Callable[..., Any]:
        """Decorator: registers a function or class under its own name, with facts that others may ask for."""
        if builder is None:
            return lambda builder: self.register(builder, **facts)
        self._add(Entry(builder.__name__, builder, {}, facts))
        return builder

    def variants(self, /, **rows: Mapping[str, Any]) -> Callable[[type], type]:
        """Class decorator: each keyword is a public name, each value its row of constructor arguments."""

        def add(builder: type) -> type:
            for name, row in rows.items():
                entry = Entry(name, builder, row, {})
                unknown = row.keys() - entry.options.keys()
                if unknown:
                    raise TypeError(f"the row {name} has options that {builder.__name__} lacks: {sorted(unknown)}")
                self._add(entry)
            return builder

        return add

    def _add(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"a {self.kind} is already named {entry.name!r}")
        self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise ValueError(f"no {self.kind} is named {name!r}{suggest(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries, key=natural))

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match an fnmatch pattern, in natural order (resnet20 before resnet110)."""
        return [name for name in self if fnmatch.fnmatchcase(name, pattern)]

    def build(self, name: str, **options: Any) -> Any:
        """Calls the builder. Raises ValueError for an unknown name, TypeError for an unknown option."""
        entry = self[name]
        return entry.builder(**entry.complete(options))

    def bind(self, name: str, **options: Any) -> functools.partial:
        """The registered function with its options fixed, to be called with its positional arguments later."""
        entry = self[name]
        return functools.partial(entry.builder, **entry.complete(options))


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that reads digits as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: its near matches, or all that is known where that is short."""
    known = list(known)
    # A digit and the letter that looks like it are the commonest slip in a model's name.
    looks = {name.lower().replace("0", "o").replace("1", "l"): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("0", "o").replace("1", "l"), looks, n=3)
    if near:
        return f"; did you mean {', '.join(looks[n] for n in near)}?"
    if not known:
        return "; there are none"
    if len(known) <= 30:
        return f"; known: {', '.join(sorted(known, key=natural))}"
    return ""
