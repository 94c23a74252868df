"""Mapping: data that recognises a log format and locates user, actor and agent in its fields.

Field names are those of a split line: lower case, dots for nesting. A tuple inside a list of fields names several
fields of one party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Final

from delegation_audit.attribution.splitting import Flat
from delegation_audit.attribution.templates import Template

KINDS: Final = ("template", "json", "logfmt", "cef", "csv")

Names = tuple[str, ...]
Parties = tuple[str | tuple[str, ...], ...]
Condition = tuple[Mapping[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """The fields of a format, by their meaning."""

    user: Parties = ()  # authenticated by the server
    on_behalf_of: Parties = ()  # the user whose rights are used; ``user`` then names the actor
    actor: Parties = ()  # evidence of delegation
    claims: Names = ()  # objects with the claims of a verified token: sub, act, client_id
    client: Parties = ()  # the OAuth client that obtained the token
    peer: Parties = ()  # authenticated at the transport
    forwarded_cert: Names = ()  # x-forwarded-client-cert
    declared: Parties = ()  # an agent's own statement: identifies it, proves nothing
    user_agent: Names = ()
    address: Names = ()
    method: Names = ()
    path: Names = ()
    request: Names = ()  # method, target and version in one
    status: Names = ()
    time: Names = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFormat:
    """Mapping of one log format. Empty ``recognise`` and ``requests`` hold for every line, other conditions never."""

    name: str
    title: str
    kind: str
    shows: str = ""
    misses: str = ""
    templates: tuple[str, ...] = ()
    extends: str | None = None
    recognise: Condition = ()
    requests: Condition = ()  # without it, every line is a request
    own: Condition = ()  # the client acts for itself, whatever the user's field says
    client_acts: Condition = ()  # the client is an agent that acts for the user
    doubtful: Condition = ()  # the actor's field may be forged
    refused: Condition = ()
    none: tuple[str, ...] = ("", "-")
    lead: tuple[str, ...] = ()  # templates of the text allowed before the pairs of logfmt; without any, none is allowed
    embedded: Names = ()  # fields whose text is a JSON object, in addition to ``claims``
    fields: FieldNames = FieldNames()
    compiled: tuple[Template, ...] = field(init=False, default=(), compare=False)
    _leads: tuple[Template, ...] = field(init=False, default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", tuple(map(Template, self.templates)))
        object.__setattr__(self, "_leads", tuple(map(Template, self.lead)))

    def fits(self, flat: Flat) -> bool:
        """Return True if a line is of this format."""
        return not self.recognise or self.holds(self.recognise, flat)

    def leads(self, text: str) -> bool:
        """Return True if ``text`` may precede logfmt pairs; else a User-Agent could smuggle pairs into another line."""
        return not text or any(template.match(text) is not None for template in self._leads)

    def holds(self, condition: Condition, flat: Flat) -> bool:
        """Return True if a table of the condition holds: each of its fields matches a pattern. ``"*"``: any value;
        ``""``: no value; ``"@"``: the field exists, with or without a value.
        """
        return any(all(self._fits(flat, name, patterns) for name, patterns in table.items()) for table in condition)

    def _fits(self, flat: Flat, name: str, patterns: Sequence[str]) -> bool:
        value = flat.get(name, "")
        if "@" in patterns and name in flat:
            return True
        if value in self.none:
            return "" in patterns
        return any(pattern == "*" or fnmatchcase(value, pattern) for pattern in patterns if pattern)

    def extend(self, base: LogFormat) -> LogFormat:
        """Return this format with the fields and ``none`` values of ``base`` appended."""
        merged = {
            one.name: (*getattr(self.fields, one.name), *getattr(base.fields, one.name)) for one in fields(FieldNames)
        }
        none = tuple(dict.fromkeys((*self.none, *base.none)))
        return replace(self, none=none, fields=FieldNames(**merged))
