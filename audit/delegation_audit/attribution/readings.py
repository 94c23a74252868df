"""Reads the parties that one line of a log names, by the mapping of its format. Pure.

A field is as reliable as its author. The server states an authenticated user, a verified token's ``act`` and the peer
of a TLS connection. A ``User-Agent``, an address and an agent's own statement identify an agent and prove nothing. An
OAuth client obtained the token, but another party may carry it (RFC 8693 section 4.3).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from delegation_audit.attribution.mapping import LogFormat
from delegation_audit.attribution.roster import address_of
from delegation_audit.attribution.splitting import Flat, SplitError, flatten, names_somebody, parse_json

# RFC 9110 section 9.1, and the slash of MCP's methods; longer text may be a token
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z/]{1,32}")
_USERINFO: Final = re.compile(r"\A(https?://)[^/]*@", re.IGNORECASE)
_FORWARDED_URI: Final = re.compile(r"(?i)(?:^|;)uri=\"?([^;,\"]{1,2048})")
_COMMON_NAME: Final = re.compile(r"(?i)(?:^|[,/]\s?)CN=([^,/+]{1,256})")
_ACCOUNT: Final = re.compile(r"(?i)(?:acct:|mailto:|user:|oidc:|[^\\@/:]{1,64}\\)")
_REFUSED: Final = frozenset({"401", "403"})

# The claims of a token, below each object that a mapping lists as ``claims``: each tuple names one party.
_SUBJECT: Final = ("sub", "preferred_username", "email", "upn")
_ACT: Final = ("act.sub", "act.client_id", "act")
_ROLES: Final = (
    "user", "on_behalf_of", "actor", "client", "peer", "declared", "user_agent", "address", "method", "path",
    "request", "status", "time",
)  # fmt: skip
_ASKED: Final = ("method", "path", "request", "user", "actor", "client")  # in conditions, such as "@method"
_CLIENT: Final = ("client_id", "azp", "appid", "cid")


@dataclass(frozen=True, slots=True)
class Party:
    """One party and its names: the log's field ``fields[n]`` holds the name ``values[n]``."""

    fields: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The name to display."""
        return self.values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Field names from the command line, which precede those of a mapping: lower case, with dots for nesting."""

    user: Sequence[str] = ()
    actor: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The parties of one request. ``request`` is its method and path, without the query, for display only.

    ``inferred``: the actor is the authenticated caller, and the log names the user in a field of its own. ``silent``:
    the format has no field for a user. ``doubtful``: the actor's field may be forged.
    """

    format: str
    users: tuple[Party, ...] = ()
    actors: tuple[Party, ...] = ()
    clients: tuple[Party, ...] = ()
    peers: tuple[Party, ...] = ()
    declared: tuple[Party, ...] = ()
    user_agents: tuple[Party, ...] = ()
    addresses: tuple[Party, ...] = ()
    request: str | None = None
    time: str | None = None
    refused: bool = False
    own: bool = False
    inferred: bool = False
    silent: bool = False
    doubtful: bool = False


class Reader:
    """Reads split lines of one format. ``extra``: field names that precede those of the mapping."""

    def __init__(self, mapping: LogFormat, extra: Fields) -> None:
        self.mapping = mapping
        self._extra = extra
        self._index: dict[str, list[tuple[str, int, int]]] = {}
        fields = mapping.fields
        claimed = {"user": (_SUBJECT, extra.user), "actor": (_ACT, extra.actor), "client": (_CLIENT, ())}
        for role in _ROLES:
            claims, chosen = claimed.get(role, ((), ()))
            below = (tuple(f"{place}.{name}" if place else name for name in claims) for place in fields.claims)
            for number, party in enumerate((*chosen, *(names for names in below if names), *getattr(fields, role))):
                for position, name in enumerate((party,) if isinstance(party, str) else party):
                    self._index.setdefault(name, []).append((role, number, position))
        for name in fields.forwarded_cert:
            self._index.setdefault(name, []).append(("forwarded_cert", 0, 0))
        self._silent = not (extra.user or fields.user or fields.on_behalf_of or fields.claims)

    def read(self, flat: Flat) -> Reading | None:
        """Return the parties that the fields of a line name; None if the line is no request.

        Raises:
            SplitError: claims that are logged as text are not JSON, or contradict other fields.
        """
        mapping = self.mapping
        flat = _add_embedded(mapping, flat)
        found = self._find(flat)
        users, actors, clients = found["user"], found["actor"], found["client"]
        inferred = False
        if self._extra.user and users and users[0].fields[0] in self._extra.user:
            users = users[:1]
        elif behalf := found["on_behalf_of"]:
            users, actors, inferred = behalf, (*users, *actors), True
        clients = tuple(party for party in clients if address_of(party.shown) is None)  # some logs put an address here
        if mapping.requests and not self._is_request(flat, found):
            return None
        own = bool(mapping.own) and mapping.holds(mapping.own, flat)
        if own:
            users, clients = clients or users, ()
        elif mapping.client_acts and mapping.holds(mapping.client_acts, flat):
            actors, clients = (*actors, *clients), ()
        method, path = _method_and_path(found)
        return Reading(
            format=mapping.name,
            users=users,
            actors=()
            if own
            else tuple(actor for actor in actors if not any(same_party(actor, user) for user in users)),
            clients=clients,
            peers=(*map(_add_common_name, found["peer"]), *_read_forwarded(found["forwarded_cert"])),
            declared=found["declared"],
            user_agents=found["user_agent"],
            addresses=tuple(_addresses(found["address"])),
            request=format_request(method, path),
            time=_first(found["time"]),
            refused=_first(found["status"]) in _REFUSED or mapping.holds(mapping.refused, flat),
            own=own,
            inferred=inferred,
            silent=self._silent and not own,
            doubtful=mapping.holds(mapping.doubtful, flat),
        )

    def _find(self, flat: Flat) -> Mapping[str, tuple[Party, ...]]:
        hits: dict[str, dict[int, list[tuple[int, str, str]]]] = {}
        none = self.mapping.none
        for name in self._index.keys() & flat.keys():
            value = flat[name].strip()
            if value and value not in none and names_somebody(value):
                for role, number, position in self._index[name]:
                    hits.setdefault(role, {}).setdefault(number, []).append((position, name, value))
        found: defaultdict[str, tuple[Party, ...]] = defaultdict(tuple)
        for role, parties in hits.items():
            found[role] = tuple(_party(sorted(parties[number])) for number in sorted(parties))
        return found

    def _is_request(self, flat: Flat, found: Mapping[str, tuple[Party, ...]]) -> bool:
        present = {f"@{role}": "present" for role in _ASKED if found[role]}
        if any(
            party.fields[0] in (*self._extra.user, *self._extra.actor) for party in (*found["user"], *found["actor"])
        ):
            present["@chosen"] = "present"
        return self.mapping.holds(self.mapping.requests, {**flat, **present})


def _party(hits: Sequence[tuple[int, str, str]]) -> Party:
    return Party(tuple(name for _, name, _ in hits), tuple(value for _, _, value in hits))


def same_party(one: Party, other: Party) -> bool:
    """Return True if two parties share a name in any usual spelling: an actor equal to the user is no second party."""
    return any(_equal(a, b) for a in one.values for b in other.values)


def _equal(one: str, other: str) -> bool:
    one, other = (_ACCOUNT.sub("", name.strip().casefold(), count=1) for name in (one, other))
    if one == other:
        return True
    (name, at, _), (other_name, other_at, _) = one.partition("@"), other.partition("@")
    return name == other_name and bool(at) != bool(other_at)


def _first(parties: Sequence[Party]) -> str | None:
    return parties[0].shown if parties else None


def _add_embedded(mapping: LogFormat, flat: Flat) -> Flat:
    """Add the members of JSON objects that are logged as text. Raises SplitError."""
    for place in (*mapping.fields.claims, *mapping.embedded):
        text = flat.get(place, "")
        if text.startswith("{"):
            flat = {**flat}
            for name, value in flatten(parse_json(text)).items():
                if flat.setdefault(f"{place}.{name}", value) != value:
                    raise SplitError("two fields have one name")
    return flat


def _add_common_name(peer: Party) -> Party:
    """Add the common name of a certificate's subject as another name of the peer."""
    found = _COMMON_NAME.search(peer.shown)
    return peer if found is None else Party((*peer.fields, peer.fields[0]), (*peer.values, found[1]))


def _read_forwarded(headers: Sequence[Party]) -> Iterator[Party]:
    """Yield the peers of x-forwarded-client-cert, nearest first: each proxy appends its own peer."""
    for header in headers:
        for element in reversed(header.shown.split(",")):
            yield from (Party(header.fields, (uri,)) for uri in _FORWARDED_URI.findall(element))


def _addresses(headers: Sequence[Party]) -> Iterator[Party]:
    """Yield addresses, nearest first: each proxy appends one to X-Forwarded-For."""
    for header in headers:
        yield from (Party(header.fields, (part.strip(),)) for part in reversed(header.shown.split(",")) if part.strip())


def _method_and_path(found: Mapping[str, tuple[Party, ...]]) -> tuple[str | None, str | None]:
    if request := _first(found["request"]):
        method, _, target = request.partition(" ")
        return method, target.rpartition(" ")[0] or target
    return _first(found["method"]), _first(found["path"])


def format_request(method: str | None, target: str | None) -> str | None:
    """Return method and path as text; None if both are absent.

    Drops query and user info, which may hold secrets, and a method of invalid syntax.
    """
    if method is not None and not _METHOD.fullmatch(method):
        method = None
    path = _USERINFO.sub(r"\1", (target or "").partition("?")[0])
    return " ".join(filter(None, (method, path))) or None
