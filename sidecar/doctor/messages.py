"""Messages between the script of the probes and its driver: requests out, answers back.

A request shows its parameters without a secret: a token or an assertion is named, with its fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from delegation_core.bearer import fingerprint_of
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.doctor.clients import TestClient
from sidecar.doctor.proof import ProofKey

MAX_ANSWER_BYTES: Final = 262_144

_ERROR_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_URNS: Final = ("urn:ietf:params:oauth:grant-type:", "urn:ietf:params:oauth:token-type:")
_SHORT_FINGERPRINT: Final = 8
_BUSY: Final = frozenset({429, 503})

T = TypeVar("T")


class Place(StrEnum):
    """An endpoint of the server."""

    TOKEN = "token"  # noqa: S105 - a name, no secret
    INTROSPECTION = "introspection"
    REVOCATION = "revocation"


@dataclass(frozen=True, slots=True)
class Held:
    """A token that the doctor holds: its value, a name for people, its type (a URN of RFC 8693 section 3)."""

    value: str = field(repr=False)
    name: str
    type: str

    def describe(self, *, fingerprint: bool = True) -> str:
        """Describe the token by its name and the beginning of its fingerprint."""
        return f"<{self.name}, {fingerprint_of(self.value)[:_SHORT_FINGERPRINT]}>" if fingerprint else f"<{self.name}>"


Parameter: TypeAlias = tuple[str, "str | Held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of ``client``. ``wrong``: with an invalid credential; ``bare``: with the client's ID alone."""

    name: str
    place: Place
    client: TestClient
    form: tuple[Parameter, ...]
    wrong: bool = False
    bare: bool = False
    proof: ProofKey | None = field(default=None, repr=False)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The request's parameters, without those of client authentication."""
        return [(name, value.value if isinstance(value, Held) else value) for name, value in self.form]

    def describe(self, *, fingerprints: bool = True) -> str:
        """Describe the request on one line, without secrets and tokens."""
        credential = "no credential" if self.bare else "a wrong credential" if self.wrong else self.client.method.value
        given = [f"{name}={_render(value, fingerprint=fingerprints)}" for name, value in self.form]
        proof = " with a DPoP proof" if self.proof is not None else ""
        return f"POST {self.place.value} as {self.client.client_id} ({credential}){proof}: {' '.join(given)}"


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause between two requests."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of any status, not trusted. ``status`` 0: no answer, for the reason in ``trouble``.

    ``at`` is the time of arrival, in seconds since the epoch.
    """

    status: int = 0
    members: Mapping[str, object] = field(default_factory=dict, repr=False)
    trouble: str = ""
    empty: bool = False
    at: float = 0.0

    @property
    def error(self) -> str | None:
        """The error code, if it is well-formed. Descriptions are ignored: they may quote tokens."""
        error = self.members.get("error")
        return error if isinstance(error, str) and _ERROR_CODE.fullmatch(error) else None

    @property
    def issued(self) -> str | None:
        """The issued token of an answer with status 200 and no error."""
        token = self.members.get("access_token")
        return token if self.status == 200 and "error" not in self.members and isinstance(token, str) else None

    @property
    def busy(self) -> bool:
        """True if the server did not judge the request: no answer, a rate limit, or unavailable."""
        return self.status == 0 or self.status in _BUSY

    @property
    def told(self) -> str:
        """Status and error code for people."""
        if self.status == 0:
            return f"no answer ({self.trouble})"
        if self.error is not None:
            return f"{self.status} {self.error}"
        return f"{self.status} with an empty body" if self.empty else str(self.status)


Step: TypeAlias = "Request | Wait"
Script: TypeAlias = Generator[Step, Answer, T]


def read_answer(status: int, body: bytes, *, at: float) -> Answer:
    """Read an answer; a body that is no JSON object has no members."""
    try:
        members = parse_object(body, max_bytes=MAX_ANSWER_BYTES, max_depth=64)
    except StrictJsonError:
        members = {}
    return Answer(status=status, members=members, empty=not body.strip(), at=at)


def text_pairs(pairs: Iterable[Parameter | None]) -> tuple[Parameter, ...]:
    """Return the parameters that are not None."""
    return tuple(pair for pair in pairs if pair is not None)


def _render(value: str | Held, *, fingerprint: bool) -> str:
    if isinstance(value, Held):
        return value.describe(fingerprint=fingerprint)
    for prefix in _URNS:
        value = value.removeprefix(prefix)
    return value.replace(" ", "+")
