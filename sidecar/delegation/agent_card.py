"""Agent cards of A2A 0.3 and 1.0: read strictly, and written again with addresses and schemes of the mesh. Pure.

A client goes where the card of an agent sends it, with whatever login the card asks for. So a card passes a sidecar
only rewritten: every interface is at an address that leads through sidecars, and no scheme asks for a login that the
mesh does not take. A card may be of both versions at once, as the official SDKs write it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sidecar.delegation.a2a import VERSIONS
from sidecar.delegation.json_rpc import MessageRefused, one_spelling, without_marks
from sidecar.delegation.strict_json import StrictJsonError, parse_message_object
from sidecar.delegation.target import canonical_target
from sidecar.errors import Denied, Reason

MAX_CARD_BYTES: Final = 256 * 1024

_BINDINGS: Final = frozenset({"JSONRPC", "HTTP+JSON"})
_GRPC: Final = "GRPC"
# Libraries of gRPC take an authority alone, and find methods at the root whatever path a URL has.
_is_grpc_url: Final = re.compile(
    r"(?P<scheme>https?://)?(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?(?(scheme)(?:/[!-~]*)?)"
).fullmatch
_MEMBERS: Final = frozenset(
    {
        "additionalInterfaces",
        "capabilities",
        "name",
        "preferredTransport",
        "protocolVersion",
        "security",
        "securityRequirements",
        "securitySchemes",
        "signatures",
        "skills",
        "supportedInterfaces",
        "url",
    }
)
_OF_INTERFACE: Final = frozenset({"protocolBinding", "protocolVersion", "tenant", "transport", "url"})
_OF_SKILL: Final = frozenset({"security", "securityRequirements"})
_SECURITY: Final = ("security", "securityRequirements", "securitySchemes")

# Both are demanded in one requirement: an X.509-SVID, and a token that names its holder as actor.
_SCHEMES_V03: Final[Mapping[str, Mapping[str, object]]] = {
    "mtls": {"type": "mutualTLS"},
    "delegation": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}
_SCHEMES_V1: Final[Mapping[str, Mapping[str, object]]] = {
    "mtls": {"mtlsSecurityScheme": {}},
    "delegation": {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}},
}


@dataclass(frozen=True, slots=True)
class AgentCard:
    """A card that was read and checked; its members are not changed. ``signed``: it has a signature."""

    members: Mapping[str, Any]
    signed: bool

    def rewritten(
        self, address: Callable[[str], str | None], *, mesh: bool, grpc: Callable[[str], str | None] = lambda _: None
    ) -> dict[str, Any]:
        """Return the members with other addresses, without signatures, and with what the mesh demands or nothing.

        ``address`` makes the URL of an interface of its path, as the card has it; None: the interface is not served,
        and left out. ``grpc`` returns the authority where calls of gRPC in a version are served, if they are.
        ``mesh``: for peers, who need an SVID and a token; else for the agent, whose sidecar adds both.

        Raises:
            Denied: CARD_REFUSED, no interface is left.
        """
        made = {name: value for name, value in self.members.items() if name not in (*_SECURITY, "signatures")}
        skills = self.members.get("skills")
        if skills is not None:
            made["skills"] = [{n: value for n, value in one.items() if n not in _OF_SKILL} for one in skills]
        is_v1, is_v03 = (
            made.get("supportedInterfaces") is not None,
            not made.keys().isdisjoint({"url", "additionalInterfaces"}),
        )
        move = _Move(address, grpc, "https://" if mesh else "http://")
        if not is_v1:
            made.pop("supportedInterfaces", None)
        else:
            made["supportedInterfaces"] = list(_moved(made["supportedInterfaces"], move))
        if is_v03:
            made = _moved_v03(made, move)
        if not made.get("supportedInterfaces") and "url" not in made:
            raise _refused("no interface of the card is served here, by a known binding in version 0.3 or 1.0")
        if mesh:
            made |= _demands(v1=is_v1, v03=is_v03)
        return made


def read_card(document: bytes) -> AgentCard:
    """Read the document of a card.

    Raises:
        Denied: CARD_REFUSED: not a strict JSON object of at most ``MAX_CARD_BYTES``, or not a card.
    """
    try:
        return card_of(parse_message_object(document, max_bytes=MAX_CARD_BYTES))
    except StrictJsonError as error:
        raise _refused(str(error)) from None


def card_of(members: Mapping[str, Any]) -> AgentCard:
    """Check the members of a card. Raises Denied: CARD_REFUSED, they are of no card, or could be read in two ways."""
    try:
        _check(members)
    except MessageRefused as error:
        raise _refused(error.detail) from None
    return AgentCard(members, bool(members.get("signatures")))


def _check(members: Mapping[str, Any]) -> None:
    one_spelling(members, _MEMBERS, fold=without_marks)
    if not isinstance(members.get("name"), str):
        raise MessageRefused("the card has no name")
    if not isinstance(members.get("signatures", []), list):
        raise MessageRefused("signatures are not an array")
    for name in ("supportedInterfaces", "additionalInterfaces"):
        for one in _objects(members, name):
            one_spelling(one, _OF_INTERFACE, fold=without_marks)
            if not isinstance(one.get("url"), str):
                raise MessageRefused("an interface has no URL")
    for one in _objects(members, "skills"):
        one_spelling(one, _OF_SKILL, fold=without_marks)
    if "url" not in members and "supportedInterfaces" not in members:
        raise MessageRefused("the card names no interface")
    if not isinstance(members.get("url", ""), str):
        raise MessageRefused("url is no text")


def _objects(members: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = members.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MessageRefused(f"{name} is not an array of objects")
    return found


class _Move(NamedTuple):
    """Makes new addresses of interfaces. ``address`` and ``grpc`` are as of ``rewritten``."""

    address: Callable[[str], str | None]
    grpc: Callable[[str], str | None]
    scheme: str

    def url(self, url: str, binding: str, version: str) -> str | None:
        """Return the URL of an interface; None: it is not served, or of an unknown binding or version."""
        version = ".".join(version.split(".")[:2])
        if version not in VERSIONS:
            return None
        if binding != _GRPC:
            return self.address(_path(url)) if binding in _BINDINGS else None
        form, authority = _is_grpc_url(url), self.grpc(version)
        if form is None or authority is None:
            return None
        return f"{self.scheme}{authority}" if form["scheme"] else authority


def _moved(interfaces: list[dict[str, Any]], move: _Move) -> Iterator[dict[str, Any]]:
    for one in interfaces:
        url = move.url(one["url"], str(one.get("protocolBinding")), str(one.get("protocolVersion") or "1.0"))
        if url is not None:
            yield {**one, "url": url}


def _moved_v03(made: dict[str, Any], move: _Move) -> dict[str, Any]:
    """Return the members with the addresses of 0.3. If its main interface is not served, another takes its place."""

    def moved(interfaces: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = ((one, move.url(one["url"], str(one.get("transport")), _version_of(one))) for one in interfaces)
        return [{**one, "url": url} for one, url in found if url is not None]

    mains = [{"url": made["url"], "transport": made.get("preferredTransport") or "JSONRPC"}] if "url" in made else []
    kept = moved(mains)
    others = moved(made.get("additionalInterfaces") or [])
    made = {name: value for name, value in made.items() if name not in {"url", "preferredTransport"}}
    if "additionalInterfaces" in made:
        made["additionalInterfaces"] = others
    for first in (*kept, *others)[:1] if mains else ():
        made |= {"url": first["url"], "preferredTransport": first["transport"]}
    return made


def _version_of(interface: Mapping[str, Any]) -> str:
    return str(interface.get("protocolVersion") or "0.3")


def _path(url: str) -> str:
    """Return the path of an interface's URL, as it is: an empty one stays so, since clients append to it."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.query or parts.fragment or not parts.netloc:
            raise _refused("the URL of an interface is not one of http or https without a query")
        if parts.path and canonical_target(parts.path.encode("ascii")).path != parts.path:
            raise _refused("the path of an interface is not in canonical form")
    except (ValueError, Denied) as error:
        raise _refused("the URL of an interface cannot be read") from error
    return parts.path


def _demands(*, v1: bool, v03: bool) -> dict[str, object]:
    schemes = {
        name: {**(_SCHEMES_V1[name] if v1 else {}), **(_SCHEMES_V03[name] if v03 else {})} for name in _SCHEMES_V1
    }
    made: dict[str, object] = {"securitySchemes": schemes}
    if v1:
        made["securityRequirements"] = [{"schemes": {name: {"list": []} for name in schemes}}]
    if v03:
        made["security"] = [{name: [] for name in schemes}]
    return made


def _refused(detail: str) -> Denied:
    return Denied(Reason.CARD_REFUSED, detail)
