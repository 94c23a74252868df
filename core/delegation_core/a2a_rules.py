"""A2A settings of a route, and the well-known paths of agent cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from delegation_core.push_urls import PushUrl

CARD: Final = "GetAgentCard"  # GET of the public card: served by the sidecar itself
CARD_PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")  # of 1.0 and 0.3, of 0.2
CARD_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class A2aRules:
    """Rules of an A2A route beyond those of its operations.

    ``card_url``: origin of the interfaces in the agent's card; None: the authority that each peer addresses.
    ``rewrite_signed``: rewrite a signed card and drop its signature, instead of refusing the card. ``strict_tasks``:
    refuse tasks whose creation this sidecar did not see. ``push_urls``: allowed targets of push notifications (empty:
    none). ``grpc``: the other end accepts gRPC, so cards may list gRPC interfaces.
    """

    card_url: str | None = None
    rewrite_signed: bool = False
    strict_tasks: bool = False
    push_urls: tuple[PushUrl, ...] = ()
    grpc: bool = False


PLAIN_RULES: Final = A2aRules()
