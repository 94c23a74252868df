"""Interface between the sidecar and one dialect of token services: an adapter builds requests and parses answers.

An adapter is pure. Its exchange is a generator: it yields each ``Step`` (a form for a token endpoint), is sent the
``Answer``, and returns the token's description. The sidecar does the rest: connections, client authentication, retries,
deadlines, the cache, and the proof of the issued token by its issuer's profile. An adapter cannot loosen that proof.

Settings choose the adapter of each token service; nothing in a token does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from delegation_core.errors import Denied, Reason
from delegation_core.plan import Plan
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TokenResponse
from delegation_core.verify import VerifiedToken
from sidecar.exchange.adapters.step import BEARER as BEARER
from sidecar.exchange.adapters.step import TOKEN as TOKEN
from sidecar.exchange.adapters.step import Answer as Answer
from sidecar.exchange.adapters.step import Step as Step

if TYPE_CHECKING:
    from sidecar.exchange.adapters.login import UserFlow


class ClientAuth(StrEnum):
    """Ways in which the sidecar authenticates at a token service, by their names in the settings."""

    X509_SVID = "x509-svid"  # mTLS; the SPIFFE ID is the client
    TLS_SAN_URI = "tls-client-auth-san-uri"  # RFC 8705 section 2.1, registered as tls_client_auth_san_uri
    JWT_SVID = "jwt-svid"  # RFC 7523 section 2.2 with a JWT-SVID
    JWT_SPIFFE = "jwt-spiffe"  # the same with the assertion type of draft-ietf-oauth-spiffe-client-auth
    PRIVATE_KEY_JWT = "private-key-jwt"  # OpenID Connect Core section 9, with a static key
    SECRET_BASIC = "client-secret-basic"  # noqa: S105 - RFC 6749 section 2.3.1
    SECRET_POST = "client-secret-post"  # noqa: S105 - as above


BY_CERTIFICATE: Final = frozenset({ClientAuth.X509_SVID, ClientAuth.TLS_SAN_URI})
# These rest on a key that somebody keeps: settings allow them only by name, and records say so.
STATIC: Final = frozenset({ClientAuth.PRIVATE_KEY_JWT, ClientAuth.SECRET_BASIC, ClientAuth.SECRET_POST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Properties of the tokens of a dialect's servers. The settings are checked against them.

    ``takes`` are the types of inbound tokens that can be exchanged, as URNs (RFC 8693 section 3).
    """

    emits_act: bool  # the issued token names an actor
    nests_act: bool  # the actors of the inbound token stay in it; without this only the first hop can be proven
    narrows: bool  # a smaller scope can be asked for
    keeps_subject: bool  # ``sub`` is that of the inbound token
    several_steps: bool = False
    needs_user: bool = False  # a user takes part, in a browser
    serves_users: bool = True  # False: there are only tokens of the workload's own
    asks_login_issuer: bool = False  # login tokens go to the issuer where users log in, so there can be only one
    takes: frozenset[str] = frozenset({TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One token to request, and our credentials. ``jwt_svid``: ours with the issuer as audience; None if not needed.

    ``client_id``: our name at the token service; ``options``: from the settings.
    """

    plan: Plan
    subject_token_type: str
    client_id: str
    jwt_svid: str | None = field(repr=False)
    options: Mapping[str, str]

    @property
    def subject_token(self) -> VerifiedToken:
        """The token to be exchanged.

        Raises:
            ValueError: the plan requests a token of the workload's own.
        """
        if self.plan.subject_token is None:
            raise ValueError("no subject token is exchanged for the workload's own token")
        return self.plan.subject_token


Steps: TypeAlias = Generator[Step, Answer, TokenResponse]


def _refuse_exchange(_wanted: Wanted) -> Steps:
    """Refuse: the dialect asks users, and exchanges nothing.

    Raises:
        Denied: CALL_NOT_ALLOWED.
    """
    raise Denied(Reason.CALL_NOT_ALLOWED, "the adapter uses logins of users, and exchanges no tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One dialect. ``name`` carries its version where it is a draft or a product's own.

    ``client_auth`` are the ways of authentication that its servers take, the usual one first. ``options`` names the
    settings of the adapter with their values, the default first; a single empty value stands for any text. Those in
    ``required_options`` must be set.
    ``endpoints``: besides the token endpoint; settings may omit those in ``discovered``, which maps them to members of
    the server's metadata (RFC 8414). ``exchange`` trades the token of a request or a login; without it ``login`` asks a
    user. ``own`` requests a token of the workload's own; None if the dialect has none. ``needs_jwt_svid`` returns
    True if the options require a JWT-SVID of ours.
    """

    name: str
    capabilities: Capabilities
    client_auth: tuple[ClientAuth, ...]
    exchange: Callable[[Wanted], Steps] = _refuse_exchange
    login: UserFlow | None = None
    own: Callable[[Wanted], Steps] | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    required_options: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    discovered: Mapping[str, str] = field(default_factory=dict)
    needs_jwt_svid: Callable[[Mapping[str, str]], bool] = lambda _options: False

    def __post_init__(self) -> None:
        no_exchange = self.exchange is _refuse_exchange
        if not self.capabilities.needs_user == (self.login is not None) == no_exchange:
            raise ValueError("an adapter with needs_user needs login, any other needs exchange")
        if not self.discovered.keys() <= frozenset(self.endpoints):
            raise ValueError("discovered: names endpoints of the adapter")

    def complete(self, options: Mapping[str, str]) -> Mapping[str, str]:
        """Return the options with defaults for those that are not set.

        Raises:
            ValueError: an option is unknown or missing, or has a value that the adapter does not know. Names the fix.
        """
        for name, value in options.items():
            known = self.options.get(name)
            if known is None:
                raise ValueError(f"options: {self.name} has no option {name}; it has {_listed(self.options)}")
            if known != ("",) and value not in known:
                raise ValueError(f"options: {name} must be one of {_listed(known)}")
        missing = [name for name in self.required_options if not options.get(name)]
        if missing:
            raise ValueError(f"options: {self.name} needs {', '.join(missing)}")
        return {**{name: values[0] for name, values in self.options.items()}, **options}


def _listed(names: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
