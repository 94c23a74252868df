"""Agent cards of A2A 0.3 and 1.0: strict parser, and rewriter of interface URLs and security schemes. Pure.

A client connects to the URLs in an agent's card and sends the credentials that the card asks for. So a sidecar rewrites
each card: every interface URL leads through sidecars, and the security schemes are those of the mesh. One card may
have members of both versions, as the official SDKs write it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from delegation_core.a2a import VERSIONS
from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import MessageRefused, one_spelling, without_marks
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError
from delegation_core.target import canonical_target

MAX_CARD_BYTES: Final = 256 * 1024

_BINDINGS: Final = frozenset({"JSONRPC", "HTTP+JSON"})
_GRPC: Final = "GRPC"
# gRPC libraries accept a bare authority, and ignore the path of a URL.
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

# One security requirement demands both: an X.509-SVID, and a token that names its holder as actor.
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
    """A checked card with its original members. ``signed``: it has a signature."""

    members: Mapping[str, Any]
    signed: bool

    def rewritten(
        self, address: Callable[[str], str | None], *, mesh: bool, grpc: Callable[[str], str | None] = lambda _: None
    ) -> dict[str, Any]:
        """Return the members with new interface URLs, and without signatures and the card's own security schemes.

        ``address`` maps the path of an interface to its new URL, or None to leave the interface out. ``grpc`` maps an
        A2A version to the authority that serves it by gRPC, or None. ``mesh``: the reader is a peer, so the card
        demands an SVID and a token; False: the reader is our agent, whose sidecar adds both.

        Raises:
            Denied: CARD_REFUSED if no interface is left, or the URL of one is unusable.
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
            raise _refused("no interface of the card has a known binding, version 0.3 or 1.0, and a route here")
        if mesh:
            made |= _demands(v1=is_v1, v03=is_v03)
        return made


def read_card(document: bytes) -> AgentCard:
    """Parse a card.

    Raises:
        Denied: CARD_REFUSED unless ``document`` is a strict JSON object of at most ``MAX_CARD_BYTES`` and a valid card.
    """
    try:
        return card_of(parse_message_object(document, max_bytes=MAX_CARD_BYTES))
    except StrictJsonError as error:
        raise _refused(str(error)) from None


def card_of(members: Mapping[str, Any]) -> AgentCard:
    """Check the members of a card and wrap them. Raises Denied: CARD_REFUSED if they are invalid or ambiguous."""
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
        raise MessageRefused("signatures is not an array")
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
        raise MessageRefused("url is not a string")


def _objects(members: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = members.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MessageRefused(f"{name} is not an array of objects")
    return found


class _Move(NamedTuple):
    """Rewriter of interface URLs. ``address`` and ``grpc``: see ``AgentCard.rewritten``."""

    address: Callable[[str], str | None]
    grpc: Callable[[str], str | None]
    scheme: str

    def url(self, url: str, binding: str, version: str) -> str | None:
        """Return the new URL of an interface; None if its binding or version is unknown, or no route serves it."""
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
    """Return ``made`` with the URLs of 0.3 moved; an additional interface replaces a main one that is not served."""

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
    """Return the path of an interface's URL; an empty path stays empty, since clients append to it. Raises Denied."""
    try:
        parts = urlsplit(url)
        canonical = canonical_target(parts.path.encode("ascii")).path if parts.path else ""
    except (ValueError, Denied) as error:
        raise _refused("the URL of an interface is malformed") from error
    if parts.scheme not in {"http", "https"} or parts.query or parts.fragment or not parts.netloc:
        raise _refused("the URL of an interface is not http or https, has no host, or has a query or fragment")
    if canonical != parts.path:
        raise _refused("the path of an interface is not in canonical form")
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
