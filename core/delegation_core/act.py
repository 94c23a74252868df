"""The act chain: the actor of a token and the actors before it (RFC 8693 section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.claims import MAX_TEXT_BYTES, is_name
from delegation_core.errors import Denied, Reason
from delegation_core.strict_json import MAX_DEPTH, nesting_of

MAX_ACT_DEPTH: Final = 8

_OPTIONAL: Final = ("iss", "client_id", "sub_profile")
_IDENTIFYING: Final = frozenset({"sub", *_OPTIONAL})


@dataclass(frozen=True, slots=True)
class Actor:
    """One actor as its token names it. The issuer's profile selects the identifying member.

    ``sub_profile`` lists the actor's kinds, such as ``ai_agent``; it is no identifier, but may contradict the name.
    """

    subject: str
    issuer: str | None = None
    client_id: str | None = None
    sub_profile: str | None = None


@dataclass(frozen=True, slots=True)
class ActChain:
    """A chain of one or more actors. Only ``current`` may affect access decisions; the others are evidence for records.

    ``raw``: the ``act`` object as received; the next token must contain it unchanged. ``subjects``: the ``sub`` of all
    actors, current first. ``client_ids``: the ``client_id`` of those actors that have one.
    """

    actors: tuple[Actor, ...]
    raw: Mapping[str, object]
    subjects: tuple[str, ...] = field(init=False, compare=False)
    client_ids: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(actor.subject for actor in self.actors))
        client_ids = tuple(actor.client_id for actor in self.actors if actor.client_id is not None)
        object.__setattr__(self, "client_ids", client_ids)

    @property
    def current(self) -> Actor:
        """The outermost actor."""
        return self.actors[0]

    @property
    def prior(self) -> tuple[Actor, ...]:
        """Actors before the current one, most recent first."""
        return self.actors[1:]

    @property
    def depth(self) -> int:
        """Number of actors."""
        return len(self.actors)


def parse_act(claims: Mapping[str, object], *, max_depth: int = MAX_ACT_DEPTH) -> ActChain | None:
    """Parse the act chain of a claim set, current actor first; None without an ``act`` claim. Never truncates.

    Raises:
        Denied: ACT_MALFORMED if a level is not an object with a valid ``sub`` (see ``is_name``), or has an invalid
            identifying member or a member that is too large; ACT_TOO_DEEP above ``max_depth`` actors.
    """
    if "act" not in claims:
        return None
    outermost = level = _level(claims["act"])
    actors = [_actor(level)]
    while "act" in level:
        if len(actors) == max_depth:
            raise Denied(Reason.ACT_TOO_DEEP, f"more than {max_depth} actors")
        level = _level(level["act"])
        actors.append(_actor(level))
    return ActChain(tuple(actors), outermost)


def _level(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Denied(Reason.ACT_MALFORMED, "act is not an object")
    return value


def _actor(level: Mapping[str, object]) -> Actor:
    # Other members (exp, aud, cnf ...) have no meaning in an actor: ignored, but limited in size.
    for member, value in level.items():
        if member not in _IDENTIFYING and member != "act" and not _is_bounded(value):
            raise Denied(Reason.ACT_MALFORMED, "a member of act is too large")
    if "sub" not in level:
        raise Denied(Reason.ACT_MALFORMED, "act has no sub")
    return Actor(_name(level, "sub"), *(_name(level, member) if member in level else None for member in _OPTIONAL))


def _name(level: Mapping[str, object], member: str) -> str:
    value = level[member]
    if not is_name(value):
        raise Denied(Reason.ACT_MALFORMED, f"act.{member} is not a plain string")
    return value


def _is_bounded(value: object) -> bool:
    if isinstance(value, str):
        return len(value.encode()) <= MAX_TEXT_BYTES
    return nesting_of(value) < MAX_DEPTH
