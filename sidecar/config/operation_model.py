"""Schema of the operations of a route of MCP or A2A."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sidecar.config.field_types import AcrText, Line, OriginText, PushUrlText, ScopeText, SpiffeIdText
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

    @model_validator(mode="before")
    @classmethod
    def _no_bare_name(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("is not a mapping; write {allow: [tools/list]}")  # noqa: TRY004 - what pydantic reports
        return value

    allow: list[Line] = Field(
        min_length=1,
        description=(
            "the operations: `tools/list`, `tools/call:search` or, for all others, `tools/call:*`; of A2A "
            "`SendMessage`; of gRPC `pkg.Service/Method`, or `pkg.Service/*` for all others of the service"
        ),
    )
    allow_self: bool = Field(
        default=False,
        description="also by workloads that act for themselves; only for the lists of tools, prompts and resources",
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


class A2aSection(Section):
    """Rules of a route of A2A ([A2A](a2a.md))."""

    rewrite_signed: bool = Field(
        default=False,
        description="drop the signature of an agent's card, which rewriting breaks; if not set, such a card is refused",
    )
    push_urls: list[PushUrlText] = Field(
        default=[],
        description=(
            "the URLs to which notifications may be sent: the exact origin, and a path that covers those below it; if "
            "not set, none"
        ),
    )


class InboundA2aSection(A2aSection):
    """Rules of an inbound route of A2A ([A2A](a2a.md))."""

    card_url: OriginText | None = Field(
        default=None,
        description="the origin of the interfaces in the agent's card; if not set, the one that each peer asked",
    )
    tasks: Literal["seen", "strict"] = Field(
        default="seen",
        description=(
            "`seen`: a task or context that this sidecar saw made is for whoever it was made for, and others pass; "
            "`strict`: others are refused"
        ),
    )
