"""One row of advice about a reason code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Stage of a call at which it is refused; it decides who sees what."""

    HANDSHAKE = "TLS handshake"
    CUT = "under way"
    INBOUND = "inbound"
    OUTBOUND = "outbound"
    EITHER = "inbound or outbound"
    PASSED_ON = "answered by the next hop"
    SERVICE = "token service"


class Role(StrEnum):
    """A person who can act on a refusal."""

    CALLER = "caller"
    DEVELOPER = "agent developer"
    OPERATOR = "operator"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class Guidance:
    """Advice on a reason: what it ``means``, ``who`` must act (the likeliest first), and what to ``do``."""

    stage: Stage
    means: str
    who: tuple[Role, ...]
    do: str
