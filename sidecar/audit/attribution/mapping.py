"""Mapping: data that tells a log format, and where user, actor and agent stand in it.

Field names are those of a split line: lower case, dots for nesting. A tuple inside a list of fields holds several names
of one party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Final

from sidecar.audit.attribution.splitting import Flat
from sidecar.audit.attribution.templates import Template

KINDS: Final = ("template", "json", "logfmt", "cef", "csv")

Names = tuple[str, ...]
Parties = tuple[str | tuple[str, ...], ...]
Condition = tuple[Mapping[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """The fields of a format, by what they tell."""

    user: Parties = ()  # authenticated, in the server's opinion
    on_behalf_of: Parties = ()  # the user whose rights are used; the one in ``user`` is then the actor
    actor: Parties = ()  # evidence of delegation
    claims: Names = ()  # objects with the claims of a verified token: sub, act, client_id
    client: Parties = ()  # the OAuth client that got the token
    peer: Parties = ()  # authenticated at the transport
    forwarded_cert: Names = ()  # x-forwarded-client-cert
    declared: Parties = ()  # what an agent says of itself: recognises it, proves nothing
    user_agent: Names = ()
    address: Names = ()
    method: Names = ()
    path: Names = ()
    request: Names = ()  # method, target and version in one
    status: Names = ()
    time: Names = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFormat:
    """One mapping."""

    name: str
    title: str
    kind: str
    shows: str = ""
    misses: str = ""
    templates: tuple[str, ...] = ()
    extends: str | None = None
    recognise: Condition = ()
    requests: Condition = ()  # without it, every line is a request
    own: Condition = ()  # the client acts for itself, whatever stands in the field of the user
    client_acts: Condition = ()  # the log says that the client is an agent which acts for the user
    doubtful: Condition = ()  # the actor's field cannot be relied upon
    refused: Condition = ()
    none: tuple[str, ...] = ("", "-")
    lead: tuple[str, ...] = ()  # templates of what may stand in front of the pairs of logfmt; else nothing may
    embedded: Names = ()  # fields whose text is a JSON object, besides those of ``claims``
    fields: FieldNames = FieldNames()
    compiled: tuple[Template, ...] = field(init=False, default=(), compare=False)
    _leads: tuple[Template, ...] = field(init=False, default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", tuple(map(Template, self.templates)))
        object.__setattr__(self, "_leads", tuple(map(Template, self.lead)))

    def fits(self, flat: Flat) -> bool:
        """Tell if a line is of this format."""
        return not self.recognise or self.holds(self.recognise, flat)

    def leads(self, text: str) -> bool:
        """Tell if a text may stand in front of the pairs: a User-Agent with pairs inside a line makes no such line."""
        return not text or any(template.match(text) is not None for template in self._leads)

    def holds(self, condition: Condition, flat: Flat) -> bool:
        """Tell if one table of a condition holds: ``"*"`` any value, ``""`` none, ``"@"`` any or none, but the field is
        there; else one of the patterns.
        """
        return any(all(self._fits(flat, name, patterns) for name, patterns in table.items()) for table in condition)

    def _fits(self, flat: Flat, name: str, patterns: Sequence[str]) -> bool:
        value = flat.get(name, "")
        if "@" in patterns and name in flat:
            return True
        if value in self.none:
            return "" in patterns
        return any(pattern == "*" or fnmatchcase(value, pattern) for pattern in patterns if pattern)

    def extended(self, base: LogFormat) -> LogFormat:
        """Add the fields of another format behind those of this one."""
        merged = {
            one.name: (*getattr(self.fields, one.name), *getattr(base.fields, one.name)) for one in fields(FieldNames)
        }
        none = tuple(dict.fromkeys((*self.none, *base.none)))
        return replace(self, none=none, fields=FieldNames(**merged))
