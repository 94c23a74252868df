"""Formats proposed routes as settings: one YAML document for each workload, with comments.

Every string is a SPIFFE ID, a canonical path, a method, a scope or a generated name, in double quotes as JSON writes
it. Comments hold only counts, record names and such strings. So no text of a record can end a string or a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from delegation_audit.suggest.evidence import MAX_DAYS, MAX_PATHS
from delegation_audit.suggest.proposal import Inbound, Outbound, Suggestion
from delegation_core.console.counts import pluralise

_PLAIN_RECORD: Final = re.compile(r"[A-Za-z0-9._-]+/[0-9]+")
_WHERE: Final = "    "
_NOWHERE: Final = "https://upstream.invalid:7443"  # RFC 2606: .invalid never resolves
_MADE_UP: Final = "  # made from the method; use the names that your token service knows"
_BY_RECORDS: Final = "  # from the records"


def settings_text(suggestion: Suggestion) -> str:
    """Return the YAML document of one workload."""
    opened = [route.name for route in suggestion.outbound if route.held_back is None]
    lines = [f"# {suggestion.workload}"]
    if suggestion.inbound:
        lines += ["inbound:", *_section([(_inbound(route, opened), route.held_back) for route in suggestion.inbound])]
    if suggestion.outbound:
        lines += ["outbound:", *_section([(_outbound(route), route.held_back) for route in suggestion.outbound])]
    return "\n".join(lines) + "\n"


def _section(routes: Sequence[tuple[Iterable[str], str | None]]) -> Iterator[str]:
    yield "  routes:" if any(held_back is None for _, held_back in routes) else "  routes: []"
    for lines, held_back in routes:
        if held_back is not None:
            yield f"{_WHERE}# held back: {held_back}"
        for line in lines:
            off = held_back is not None and not line.startswith("#")
            yield f"{_WHERE}{'# ' if off else ''}{line}"


def _inbound(route: Inbound, opened: Sequence[str]) -> Iterator[str]:
    widened = f"; widened from {_count(route.widened_from, MAX_PATHS, 'path')}" if route.widened_from else ""
    yield f"# {_describe_seen(route.calls, route.days)}, {pluralise(len(route.peers), 'caller')}{widened}"
    if route.unnamed:
        sources = f" (from {', '.join(route.sources)})" if route.sources else ""
        yield f"# {pluralise(route.unnamed, 'call')} without a proven caller{sources}; give each caller a sidecar"
    match = "path_prefix" if route.prefix else "path"
    yield f"- name: {_text(route.name)}"
    yield f"  match: {{{match}: {_text(route.path)}, methods: {_list(route.methods)}}}"
    yield f"  scopes: {_list(route.scopes)}{_BY_RECORDS if route.scopes_seen else _MADE_UP}"
    if not route.peers:
        yield "  peers: []"
    else:
        yield "  peers:"
    for peer in route.peers:
        off = "# " if peer.held_back is not None and route.held_back is None else ""
        why = f"; held back: {peer.held_back}" if off else "; this path among them" if peer.among else ""
        seen = f"{_describe_seen(peer.calls, peer.days)}, as {_records(peer.records, peer.calls)}"
        yield f"    {off}- {_text(peer.spiffe_id)}  # {seen}{why}"
    if opened:
        yield f"  may_call: {_list(opened)}  # records do not show which calls it causes; remove the others"


def _outbound(route: Outbound) -> Iterator[str]:
    records = _records(route.records, route.calls)
    yield f"# {_describe_seen(route.calls, route.days)}, by {', '.join(route.methods)}, as {records}"
    yield "# match and upstream are in no record; keep those of your route"
    if route.scopes_onward:
        yield f"# {_list(route.scopes_onward)} for the peer's own calls; records do not show which of them it causes"
    if route.scopes_held_back:
        yield f"# without {_list(route.scopes_held_back)}: all calls that need them are held back at the peer"
    yield f"- name: {_text(route.name)}"
    yield f"  match: {{prefix: {_text(f'/{route.name}')}}}"
    yield f"  upstream: {_text(_NOWHERE)}"
    yield f"  peer: {_text(route.peer)}"
    yield f"  audience: {_text(route.peer)}"
    scopes = sorted({*route.scopes, *route.scopes_onward})
    yield f"  scopes: {_list(scopes)}{_BY_RECORDS if route.scopes_seen else _MADE_UP}"


def _records(names: Sequence[str], calls: int) -> str:
    """Format record names for a comment. A run name may be any text: quoted as JSON, it cannot end the comment."""
    shown = (name if _PLAIN_RECORD.fullmatch(name) else _text(name) for name in names)
    return ", ".join([*shown, *([f"{calls - len(names)} more"] if calls > len(names) else [])])


def _describe_seen(calls: int, days: int) -> str:
    return f"{pluralise(calls, 'call')} on {_count(days, MAX_DAYS, 'day')}"


def _count(count: int, most: int, noun: str) -> str:
    return f"{pluralise(count, noun)}{' or more' if count >= most else ''}"


def _text(text: str) -> str:
    return json.dumps(text)


def _list(texts: Sequence[str]) -> str:
    return json.dumps(list(texts))
