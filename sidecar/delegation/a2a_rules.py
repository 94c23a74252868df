"""Rules of a route of A2A, and the paths of agent cards: all that routes know of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.delegation.push_urls import PushUrl

CARD: Final = "GetAgentCard"  # GET of the public card: served by the sidecar itself
CARD_PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")  # of 1.0 and 0.3, of 0.2
CARD_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class A2aRules:
    """Rules of a route of A2A beside those of its operations.

    ``card_url`` is the origin of interfaces in the agent's card; None: as each peer addresses us. ``rewrite_signed``:
    the signature of a card is dropped, and not the card refused. ``strict_tasks`` refuses tasks whose creation this
    sidecar did not see. Notifications may be sent to ``push_urls`` (empty: none). ``grpc``: calls of A2A by gRPC reach
    the other end, so cards may name interfaces for them.
    """

    card_url: str | None = None
    rewrite_signed: bool = False
    strict_tasks: bool = False
    push_urls: tuple[PushUrl, ...] = ()
    grpc: bool = False


PLAIN_RULES: Final = A2aRules()
