"""The case: all input of the command's script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from delegation_core.keyset import KeySet
from sidecar.doctor.clients import TestClient
from sidecar.doctor.messages import Held
from sidecar.doctor.proof import ProofKey

INVENTED_HOST: Final = "doctor.invalid"  # RFC 2606 section 2: nobody's


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server's metadata (RFC 8414), or the options that replace it. ``supported`` are the scopes that it lists.

    ``elsewhere``: names and URLs of endpoints at another origin than the token endpoint's. No request is sent there.
    """

    token: str
    issuer: str | None = None
    introspection: str | None = None
    revocation: str | None = None
    jwks: str | None = None
    supported: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The test clients, the tokens and the names to probe with. ``noise`` is fresh random text.

    ``actors`` are actor tokens of the two clients; None: the script gets them by client credentials.
    """

    server: Server
    clients: tuple[TestClient, TestClient]
    more_clients: tuple[TestClient, ...] = ()
    subject: Held
    actors: tuple[Held | None, Held | None] = (None, None)
    foreign: Held | None = None
    may_act: Held | None = None
    scope: str | None = None
    hop_scope: str | None = None
    wider: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    resource: str | None = None
    keys: KeySet | None = field(default=None, repr=False)
    wait_s: float = 3.0
    noise: str = field(repr=False)
    own_key: ProofKey = field(default_factory=ProofKey, repr=False)

    @property
    def invented_audience(self) -> str:
        """An audience that the server cannot know."""
        return f"https://{INVENTED_HOST}/{self.noise}"

    @property
    def invented_scope(self) -> str:
        """A scope that the server cannot know."""
        return f"doctor.{self.noise}"
