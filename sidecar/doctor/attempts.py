"""Attempts: token exchanges as drafted, sent and answered, and the examination that collects them by name."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Final

from delegation_core.rfc8693 import CLIENT_CREDENTIALS, GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN
from sidecar.doctor.case import Case
from sidecar.doctor.clients import TestClient
from sidecar.doctor.messages import Answer, Held, Parameter, Place, Request, Script, text_pairs
from sidecar.doctor.proof import ProofKey
from sidecar.doctor.reading import Reading, parse_introspection, read_token, scopes_of

_UNREAD: Final = Reading(kind="opaque")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A token exchange to send. Probes change one fact of a lawful one. ``more`` are parameters beside the usual."""

    client: TestClient
    subject: Held
    actor: Held | None = None
    scope: str | None = None
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    requested: str | None = TOKEN_TYPE_ACCESS_TOKEN
    more: tuple[Parameter, ...] = ()
    wrong: bool = False
    bare: bool = False
    proof: ProofKey | None = None

    @property
    def form(self) -> tuple[Parameter, ...]:
        """The parameters (RFC 8693 section 2.1)."""
        actor = self.actor
        return text_pairs(
            (
                ("grant_type", GRANT_TYPE),
                ("subject_token", self.subject),
                ("subject_token_type", self.subject.type),
                None if actor is None else ("actor_token", actor),
                None if actor is None else ("actor_token_type", actor.type),
                None if self.requested is None else ("requested_token_type", self.requested),
                None if self.scope is None else ("scope", self.scope),
                *(("audience", one) for one in self.audience),
                *(("resource", one) for one in self.resource),
                *self.more,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One exchange, or one request for a client's own token (``draft`` None), with its answer.

    ``reading`` is that of the issued token.
    """

    name: str
    draft: Draft | None
    answer: Answer
    reading: Reading = _UNREAD

    @property
    def accepted(self) -> bool:
        """True if a token was issued."""
        return self.answer.issued is not None

    @property
    def refused(self) -> bool:
        """True if the server answered without a token: with any status but 429 and 503 (``Answer.busy``)."""
        return not self.accepted and not self.answer.busy

    @property
    def issued(self) -> Held:
        """The issued token of an accepted attempt, for later requests."""
        kind = self.answer.members.get("issued_token_type")
        type_ = kind if isinstance(kind, str) and kind else TOKEN_TYPE_ACCESS_TOKEN
        return Held(self.answer.issued or "", f"token of: {self.name}", type_)

    @property
    def scopes(self) -> frozenset[str] | None:
        """The granted scopes: from the claim, else from the answer's member; None if both are missing."""
        if self.reading.scopes is not None:
            return self.reading.scopes
        told = self.answer.members.get("scope")
        return scopes_of(told) if isinstance(told, str | list) else None


@dataclass(slots=True)
class Examination:
    """The evidence so far. ``lawful`` is an exchange that the server accepts; each probe changes one fact of it.

    ``actor`` is an actor token that the server accepts; None if there is none.
    """

    case: Case
    subject: Reading = _UNREAD
    attempts: dict[str, Attempt] = field(default_factory=dict)
    own: list[Held | None] = field(default_factory=lambda: [None, None])
    own_readings: list[Reading] = field(default_factory=lambda: [_UNREAD, _UNREAD])
    lawful: Draft | None = None
    actor: Held | None = None
    may_act: Reading = _UNREAD
    opaque: Reading | None = None  # the access token, where another kind of token is read in its place

    def __getitem__(self, name: str) -> Attempt | None:
        return self.attempts.get(name)

    @property
    def first(self) -> TestClient:
        """The client of hop 1, and its actor."""
        return self.case.clients[0]

    @property
    def second(self) -> TestClient:
        """The client of hop 2."""
        return self.case.clients[1]

    def names_of(self, index: int) -> frozenset[str]:
        """Return the names by which an ``act`` may call one of the two clients."""
        return self.own_readings[index].names | {self.case.clients[index].client_id}

    def exchange(self, name: str, draft: Draft) -> Script[Attempt]:
        """Send an exchange, read its token, and keep the attempt under its name."""
        answer = yield Request(
            name=name,
            place=Place.TOKEN,
            client=draft.client,
            form=draft.form,
            wrong=draft.wrong,
            bare=draft.bare,
            proof=draft.proof,
        )
        attempt = Attempt(name=name, draft=draft, answer=answer)
        if attempt.accepted:
            reading = yield from self.read(attempt.issued, draft.client)
            attempt = replace(attempt, reading=reading)
        self.attempts[name] = attempt
        return attempt

    def own_token(self, name: str, client: TestClient, scope: str | None) -> Script[Attempt]:
        """Ask for a client's own token (RFC 6749 section 4.4)."""
        form = text_pairs((("grant_type", CLIENT_CREDENTIALS), None if scope is None else ("scope", scope)))
        answer = yield Request(name=name, place=Place.TOKEN, client=client, form=form)
        attempt = Attempt(name=name, draft=None, answer=answer)
        if attempt.accepted:
            reading = yield from self.read(attempt.issued, client)
            attempt = replace(attempt, reading=reading)
        self.attempts[name] = attempt
        return attempt

    def read(self, token: Held, client: TestClient) -> Script[Reading]:
        """Read a token's claims, from the token or by introspection (RFC 7662)."""
        reading = read_token(token.value, self.case.keys)
        if reading.claims is not None or self.case.server.introspection is None:
            return reading
        answer = yield from self.introspect(token, client)
        return parse_introspection(answer.members, reading.kind) or reading

    def introspect(self, token: Held, client: TestClient) -> Generator[Request, Answer, Answer]:
        """Ask the server about a token."""
        answer = yield Request(
            name=f"introspection of {token.name}", place=Place.INTROSPECTION, client=client, form=(("token", token),)
        )
        return answer
