"""Line templates: the text of a log line with ``{field}`` in place of each value. Pure.

Mappings describe text by templates, never by regular expressions. Each field ends before the first occurrence of the
literal that follows it, without backtracking: matching takes linear time, and a line matches in one way or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_FIELD: Final = re.compile(r"\{([^{}]*)\}|\{\{|\}\}|[{}]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_ANY: Final = r"[^\n]"
# Fields whose values have a fixed syntax; a line with another value does not match.
_SPECIAL: Final[Mapping[str, str]] = {
    "status": r"(-?\d{1,3}|-)",
    "port": r"(\d{1,5})",
    "address": r"([\w.:%-]++|\[[0-9A-Fa-f:.%]++\](?::\d{1,5})?)",
}


class TemplateError(ValueError):
    """The template cannot be used; the message says why."""


class Template:
    """A compiled template. ``{_}`` skips a value; ``{{`` and ``}}`` are braces; ``{status}`` and ``{port}`` match
    numbers (a status may be ``-``); ``{address}`` matches a host name or an address.
    """

    def __init__(self, text: str) -> None:
        self._names: list[str] = []
        self._pattern = re.compile(self._compile(text))

    def match(self, line: str) -> dict[str, str] | None:
        """Return the fields of a line; None unless the template matches the whole line."""
        found = self._pattern.fullmatch(line)
        return None if found is None else dict(zip(self._names, found.groups(), strict=True))

    def _compile(self, text: str) -> str:
        pieces = list(_pieces(text))
        pattern = ""
        for number, (name, literal) in enumerate(pieces):
            before = pieces[number - 1][1] if number else ""
            if name is None:
                pattern += re.escape(literal)
                continue
            value = _value(before, literal)
            if name != "_":
                if name in self._names:
                    raise TemplateError(f"{{{name}}} stands twice; name the second {{_}}")
                self._names.append(name)
                value = _SPECIAL.get(name, f"({value})")
            pattern += value + re.escape(literal)
            if not literal and number < len(pieces) - 1:
                raise TemplateError(f"no text between {{{name}}} and the field after it; put some there")
        if not self._names:
            raise TemplateError("the template has no {field}")
        return pattern


def _value(before: str, after: str) -> str:
    """Return the regular expression of a value: all text before ``after``; inside quotes, escaped quotes too."""
    escaped = r"\\." if before.endswith('"') and after.startswith('"') else ""
    stop = f"[^{re.escape(after)}\\n]" if len(after) == 1 else f"(?!{re.escape(after)}){_ANY}" if after else _ANY
    # An atomic group, not ``*+``: Python 3.11.2 refuses a line whose possessive repetition ends at a lookahead.
    return f"(?>(?:{escaped}|{stop})*)" if escaped else f"(?>(?:{stop})*)"


def _pieces(text: str) -> list[tuple[str | None, str]]:
    """Split a template into pairs of a field and the literal after it; the first pair has None for the field."""
    pieces: list[tuple[str | None, str]] = [(None, "")]
    at = 0
    for found in _FIELD.finditer(text):
        name, literal = pieces[-1]
        pieces[-1] = name, literal + text[at : found.start()]
        at = found.end()
        if found.group() in {"{{", "}}"}:
            name, literal = pieces[-1]
            pieces[-1] = name, literal + found.group()[0]
        elif found[1] is None or not _NAME.fullmatch(found[1]):
            raise TemplateError(
                f"{found.group()!r} is no field; a name has letters, digits, _, . and -; {{{{ is a brace"
            )
        else:
            pieces.append((found[1], ""))
    name, literal = pieces[-1]
    pieces[-1] = name, literal + text[at:]
    return pieces
