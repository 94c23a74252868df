"""What is contradictory in a document besides its faults, so that both are told in one go. Pure.

The document is made whole first: what is missing or cannot be used gives way to a stand-in, like nothing else in the
file, and is cross-checked as if it had been written so. What a contradiction says only *because* of a stand-in is no
fault of the file: ``may_call: [crm]`` beside a route whose name is missing may be right. So each stand-in is exchanged
for the words of the file, one after the other, and only what stays wrong all the time is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.config.problems import dotted, meant_by
from sidecar.errors import Problem

M = TypeVar("M", bound=BaseModel)
Path: TypeAlias = tuple[int | str, ...]

_ROUNDS: Final = 12  # a stand-in lacks keys of its own; sections are not nested deeper than that
_EFFORT: Final = 20_000  # words that are read for all trials together, so that a huge file takes no minutes

# By key; "#" becomes another word each time, "@" the same in capitals. Other keys are left out, or lists, or sections.
_STAND_INS: Final = {
    "agent": "http://127.0.0.1:1",
    "file": "/stand-in-#",
    "issuer": "https://stand-in-#.invalid",
    "jwks": "https://stand-in-#.invalid/jwks",
    "keys": {"directory": "/stand-in-#"},
    "listen": "127.0.0.1:0",  # never the default: that may be another listener's
    "methods": ["STAND-IN-@"],
    "path": "/stand-in-#",
    "path_prefix": "/stand-in-#",
    "prefix": "/stand-in-#",
    "preset": "sts",
    "profile": "sts",
    "token_endpoint": "https://stand-in-#.invalid/token",
    "upstream": "https://stand-in-#.invalid",
    "workload_api": "unix:///stand-in-#",
    **dict.fromkeys(("certificate", "key", "bundle", "ca", "directory"), "/stand-in-#"),
    **dict.fromkeys(("actor", "peer", "spiffe_id", "workload"), "spiffe://stand-in-#.invalid/it"),
    **dict.fromkeys(("audience", "claim", "client_id", "host", "name", "sub", "subject"), "stand-in-#"),
    **{key: {} for key in ("client_ids", "map", "match", "scope_from")},
}


def contradictions(
    document: dict[str, object],
    error: ValidationError,
    model: type[M],
    cross_check: Callable[[M], list[Problem]],
    *,
    told: list[Problem],
) -> list[Problem]:
    """What contradicts something else in ``document`` however its faults are cured; nothing of what is ``told``."""
    remains = _Remains(copy.deepcopy(document), model)
    whole = remains.made_whole(error)
    if whole is None:
        return []
    fields = {problem.field.partition(" (")[0] for problem in told} | remains.meant
    found = [problem for problem in cross_check(whole) if not _within(remains.renumbered(problem.field), fields)]
    for trial in remains.trials(found):
        if not found:
            break
        again = cross_check(trial)
        found = [problem for problem in found if problem in again]
    return [Problem(remains.renumbered(problem.field), problem.wrong, problem.cure) for problem in found]


def trials_for(words: int) -> int:
    """How many trials a document of so many words is worth. What is open after the last one is told."""
    return max(20, _EFFORT // max(1, words))


def _within(field: str, fields: set[str]) -> bool:
    """Whether the field is one of ``fields``, or in a section that is."""
    return any(field == one or field.startswith((f"{one}.", f"{one}[")) for one in fields)


class _Remains:
    """A document on its way to be whole, and what was done to it."""

    def __init__(self, document: dict[str, object], model: type[BaseModel]) -> None:
        self._document: Any = document
        self._model = model
        self._number = 0
        self._stood_in: dict[Path, None] = {}
        self._taken_out: list[Path] = []  # items of lists
        self.meant: set[str] = set()

    def made_whole(self, error: ValidationError) -> Any:
        """The settings with stand-ins for all that is wrong; None if that leads nowhere."""
        for _ in range(_ROUNDS):
            details = error.errors(include_url=False)
            for detail in sorted(details, key=lambda detail: _order(detail["loc"]), reverse=True):
                self._mend(detail)
            try:
                return self._model.model_validate(self._document)
            except ValidationError as further:
                error = further
        return None

    def renumbered(self, field: str) -> str:
        """The field as the file's reader counts: with the items that were taken out."""
        for path in sorted(self._taken_out, key=_order):
            *_, index = path
            start = f"{dotted(path[:-1])}["
            if field.startswith(start) and isinstance(index, int):
                number, _, rest = field.removeprefix(start).partition("]")
                if int(number) >= index:
                    field = f"{start}{int(number) + 1}]{rest}"
        return field

    def trials(self, found: list[Problem]) -> Iterator[Any]:
        """The settings with one stand-in after the other exchanged for words of the file, the likely ones first."""
        texts = " ".join(problem.wrong for problem in found)
        words = sorted(dict.fromkeys(_words(self._document)), key=lambda word: word not in texts)
        left = trials_for(len(words))
        lists = dict.fromkeys(path[:-1] for path in self._taken_out)
        for path in (*self._stood_in, *lists):
            section = _at(self._document, path[:-1])
            kept = section.get(path[-1]) if isinstance(section, dict) else None
            if isinstance(kept, str):
                values: list[object] = [*words]
            elif isinstance(kept, list):
                values = [[]] if path in self._stood_in else []  # what is right in a list stays
                values += [[*kept, word] for word in words]
            else:
                continue
            for value in values:
                left -= 1
                if left < 0:
                    return
                section[path[-1]] = value
                try:
                    yield self._model.model_validate(self._document)
                except ValidationError:
                    continue
                finally:
                    section[path[-1]] = kept

    def _mend(self, detail: ErrorDetails) -> None:
        path = tuple(part for part in detail["loc"] if isinstance(part, int) or not part.startswith(("<", "[")))
        section, key, kind = _at(self._document, path[:-1]), path[-1] if path else None, detail["type"]
        if isinstance(section, list) and isinstance(key, int) and key < len(section):
            if kind in {"model_type", "model_attributes_type"}:
                section[key] = {}
            else:
                del section[key]
                if path[:-1] not in self._stood_in:  # the file's own
                    self._taken_out.append(path)
        elif isinstance(section, dict) and isinstance(key, str):
            if kind == "extra_forbidden":
                self._respell(section, detail["loc"], key)
            elif kind in {"model_type", "model_attributes_type", "dict_type"}:
                section[key] = {}
            elif path not in self._stood_in and (kind in {"missing", "list_type", "too_short"} or key in _STAND_INS):
                self._stood_in[path] = None
                section[key] = self._stand_in(key)
            else:
                section.pop(key, None)

    def _respell(self, section: dict[str, object], location: Path, key: str) -> None:
        """Judge the rest as if the key that was probably meant had been written."""
        value, meant = section.pop(key), meant_by(location, self._model)
        if meant is not None and meant not in section:
            section[meant] = value
            self.meant.add(dotted((*location[:-1], meant)))

    def _stand_in(self, key: str) -> object:
        self._number += 1
        number = "".join("abcdefghij"[int(digit)] for digit in str(self._number))
        return _unlike_others(_STAND_INS.get(key, [{}]), number)  # a list: of one section, if it is one of sections


def _unlike_others(value: object, number: str) -> object:
    if isinstance(value, str):
        return value.replace("#", number).replace("@", number.upper())
    if isinstance(value, list):
        return [_unlike_others(item, number) for item in value]
    return {key: _unlike_others(item, number) for key, item in value.items()} if isinstance(value, dict) else value


def _order(location: Path) -> tuple[tuple[str, int], ...]:
    return tuple(("", part) if isinstance(part, int) else (part, 0) for part in location)


def _at(document: object, path: Path) -> Any:
    for part in path:
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return None
    return document


def _words(value: object) -> Iterator[str]:
    """Every text in the document, but for keys; of a SPIFFE ID the trust domain too."""
    if isinstance(value, str):
        yield value
        if value.startswith("spiffe://"):
            yield value.removeprefix("spiffe://").partition("/")[0]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _words(item)
