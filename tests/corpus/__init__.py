"""Raw messages as data; README.md describes their format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent

_TIMES: Final = re.compile(r"\{([^{}]+?)\*([0-9]+)\}", re.DOTALL)
_KEYS: Final = frozenset(
    {
        *("case", "side", "send", "line", "host", "auth", "fields", "body", "chunks", "methods"),
        *("told", "keeps", "target", "payload", "has", "has_name", "lacks", "lacks_text"),
        *("answer", "hangs_up", "content", "gives", "gives_not", "never_says", "cut", "then", "finally", "unversioned"),
    }
)
_CLOSING: Final = frozenset({"bad_request", "ambiguous_framing", "too_large", "uri_too_long", "head_too_large"})


@dataclass(frozen=True)
class Words:
    """Values of the placeholders."""

    path: str
    escaped_path: str
    host: str
    token: str

    @property
    def auth(self) -> str:
        return f"Authorization: Bearer {self.token}\r\n"

    @property
    def get(self) -> str:
        return f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n{self.auth}\r\n"

    def fill(self, text: str) -> bytes:
        """Return the octets of a text of the corpus."""
        text = _TIMES.sub(lambda match: match[1] * int(match[2]), text)
        for name, value in (
            ("{get}", self.get),
            ("{auth}", self.auth),
            ("{token}", self.token),
            ("{path%}", self.escaped_path),
            ("{path}", self.path),
            ("{host}", self.host),
            ("{{}", "{"),
        ):
            text = text.replace(name, value)
        return text.encode("latin-1")


@dataclass(frozen=True)
class Told:
    """One expected answer: any of ``choices``, each a status and the reason code, None where not ours."""

    choices: tuple[tuple[int, str | None], ...]

    @property
    def forwarded(self) -> bool:
        return all(reason is None for _, reason in self.choices)

    @property
    def maybe_forwarded(self) -> bool:
        return any(reason is None for _, reason in self.choices)


@dataclass(frozen=True)
class Case:
    """One message and its expected result."""

    name: str
    row: dict[str, Any] = field(repr=False)

    @property
    def told(self) -> list[Told]:
        told = self.row["told"]
        return [_told(one) for one in (told if isinstance(told, list) else [told])]

    @property
    def keeps(self) -> bool | None:
        """True if the connection must stay open, False if it must close; None: either."""
        if "keeps" in self.row:
            return bool(self.row["keeps"]) if self.row["keeps"] is not None else None
        last = self.told[-1]
        if all(reason in _CLOSING for _, reason in last.choices):
            return False
        return (
            True if last.choices == ((200, None),) and not self.row.get("hangs_up") and "cut" not in self.row else None
        )

    @property
    def methods(self) -> list[str]:
        """The methods of the requests, since the answers' framing depends on them."""
        first = self.row.get("send") or self.row.get("line", "GET")
        return [*self.row.get("methods", [first.split(" ")[0]]), *["GET"] * 8]

    def message(self, words: Words) -> bytes:
        """Return the message to send."""
        row = self.row
        if "send" in row:
            return words.fill(row["send"])
        chunks = row.get("chunks", False)
        line = row.get("line", "POST {path} HTTP/1.1" if chunks else "GET {path} HTTP/1.1")
        host = row.get("host", "Host: {host}\r\n")
        auth = "{auth}" if row.get("auth", True) else ""
        fields = row.get("fields", "Transfer-Encoding: chunked\r\n" if chunks else "")
        return words.fill(f"{line}\r\n{host}{auth}{fields}\r\n{row.get('body', '')}")


def _told(one: object) -> Told:
    choices = [str(choice).split(" ") for choice in (one if isinstance(one, list) else [one])]
    return Told(tuple((int(words[0]), words[1] if len(words) > 1 else None) for words in choices))


def cases(name: str, side: str) -> list[Case]:
    """Return the cases of one file for one side, ``inbound`` or ``outbound``."""
    rows = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for row in rows:
        assert not row.keys() - _KEYS, row
    return [Case(f"{name}/{row['case']}", row) for row in rows if row.get("side", side) == side]
