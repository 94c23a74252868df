"""Schema of the operations of a route of MCP or A2A."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sidecar.config.field_types import AcrText, Line, ScopeText, SpiffeIdText
from sidecar.config.sections import Section

MessageBytes = Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)]


class HumanSection(Section):
    """The login that the user behind a call must have: recent, strong, or both (RFC 9470)."""

    max_age_s: int | None = Field(default=None, ge=1, le=31_536_000, description="the longest time since the login")
    acr: list[AcrText] = Field(
        default=[], description="the values of `acr` of which the login has one, in the order of preference"
    )


class AllowedOperations(Section):
    """Operations with a policy of their own, on top of that of their route."""

    allow: list[Line] = Field(
        min_length=1,
        description=(
            "the operations: `tools/list`, `tools/call:search` or, for all others, `tools/call:*`; of A2A `SendMessage`"
        ),
    )
    allow_self: bool = Field(
        default=False, description="also by workloads that act for themselves; not for what names a tool or a resource"
    )


class InboundOperations(AllowedOperations):
    """Operations that peers may ask for, with what they need besides what their route needs."""

    scopes: list[ScopeText] = Field(default=[], description="scopes that a token must have, besides the route's")
    peers: list[SpiffeIdText] | None = Field(
        default=None, description="the workloads of the route that may call; if not set, all of them"
    )
    subjects: list[Line] | None = Field(
        default=None, min_length=1, description="the only subjects for whom it may be called; if not set, any"
    )
    human: HumanSection | None = Field(
        default=None, description="the login that the user must have; if not set, as the route says"
    )


class OutboundOperations(AllowedOperations):
    """Operations that the agent may ask for, with the most scopes to ask for."""

    scopes: list[ScopeText] | None = Field(
        default=None, description="the scopes of the route to ask for; if not set, all of them"
    )
