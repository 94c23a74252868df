"""Settings of one token service: its endpoints, its pinned identity, our authentication, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.adapters import find_adapter
from sidecar.exchange.adapters.adapter import Adapter
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.failover import MAX_REPLICAS
from sidecar.identity.endpoint import Endpoint, address_of

_RETRIES: Final = range(4)


AUTHORIZATION: Final = "authorization"  # where a browser is sent; nothing is asked there


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """An endpoint beside the token endpoint that an adapter asks, the identity that answers, and our authentication."""

    endpoint: Endpoint
    client_auth: ClientAuthSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """The token service, its identity (as in `Endpoint`), our authentication there, and limits on time and size.

    ``further_token_endpoints`` are those of its other replicas, each asked while those before it fail.
    ``timeout_s`` bounds a whole exchange, retries included; ``retries`` count connections that failed before an answer.
    ``endpoints`` are those that the adapter asks beside the token endpoint, by the adapter's names.
    ``authorization_endpoint`` is the URL for a user's browser. Endpoints that the adapter needs and the settings omit
    come from the issuer's ``metadata`` (RFC 8414; None: at its usual place), which the same identity must serve.

    Raises:
        ValueError: the endpoint, the adapter, its options or a number is unusable. The text names field and fix.
    """

    issuer: str
    token_endpoint: str
    further_token_endpoints: tuple[str, ...] = ()
    peer: SpiffeId | None = None
    ca_file: str | None = None
    timeout_s: float = 2.0
    max_response_bytes: int = 65536
    retries: int = 1
    max_flights: int = 256
    adapter: str = "rfc8693"
    client_auth: ClientAuthSettings | None = None  # None: our X.509-SVID
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict, hash=False)
    authorization_endpoint: str | None = None
    metadata: str | None = None

    def __post_init__(self) -> None:
        urls = [one.url for one in self.token_endpoints]
        if len(urls) > MAX_REPLICAS or len(set(urls)) < len(urls):
            raise ValueError(f"token_endpoints: list at most {MAX_REPLICAS}, each only once")
        if not self.timeout_s > 0:
            raise ValueError("timeout_s: it must be above 0 s")
        if self.retries not in _RETRIES:
            raise ValueError("retries: it must be 0 to 3")
        if self.max_response_bytes < 1 or self.max_flights < 1:
            raise ValueError("max_response_bytes, max_flights: each must be at least 1")
        adapter = self.known
        object.__setattr__(self, "options", adapter.complete(self.options))
        if self.authentication.method not in adapter.client_auth:
            raise ValueError(
                f"client_auth: {adapter.name} does not support {self.authentication.method}; use one of "
                f"{', '.join(adapter.client_auth)}"
            )
        names, found = frozenset(adapter.endpoints), adapter.discovered.keys()
        if not names - found <= self.endpoints.keys() <= names:
            raise ValueError(f"endpoints: {adapter.name} asks at {', '.join(adapter.endpoints) or 'none'}; name these")
        self._check_login(adapter)

    def _check_login(self, adapter: Adapter) -> None:
        browser = adapter.login is not None and adapter.login.browser
        if self.authorization_endpoint is not None and not browser:
            raise ValueError(f"authorization_endpoint: {adapter.name} sends no browser there; remove it")
        if self.authorization_endpoint is not None:
            from sidecar.exchange.metadata import is_web_url

            if not is_web_url(self.authorization_endpoint):
                raise ValueError("authorization_endpoint: it is not an https URL without user info and fragment")
        if self.metadata is not None and not self.discovered:
            raise ValueError("metadata: it is not read, because all endpoints are set; remove it")
        if self.discovered and address_of(self.metadata_url) != address_of(self.token_endpoint):
            raise ValueError(
                "metadata: it is on another host than token_endpoint; write "
                f"{'authorization_endpoint' if browser else 'endpoints'} instead"
            )

    @property
    def discovered(self) -> dict[str, str]:
        """The endpoints that the adapter needs and the settings leave out, with their members of the metadata."""
        login, found = self.known.login, dict(self.known.discovered)
        if login is not None and login.browser and self.authorization_endpoint is None:
            found[AUTHORIZATION] = "authorization_endpoint"
        return {name: member for name, member in found.items() if name not in self.endpoints}

    @property
    def metadata_url(self) -> str:
        """The URL of the issuer's metadata, served by the identity of the token endpoint."""
        from sidecar.exchange.metadata import metadata_url  # few adapters read it

        return self.metadata or metadata_url(self.issuer)

    @property
    def token_endpoints(self) -> tuple[Endpoint, ...]:
        """The token endpoints, the preferred first, and the identity that answers at each."""
        return tuple(map(self.at, (self.token_endpoint, *self.further_token_endpoints)))

    def at(self, url: str) -> Endpoint:
        """Return the endpoint at ``url``, with the token service's identity."""
        return Endpoint(url=url, peer=self.peer, ca_file=self.ca_file)

    @property
    def known(self) -> Adapter:
        """The adapter that ``adapter`` names. Not stored: settings are sent between processes, functions cannot be."""
        return find_adapter(self.adapter)

    @property
    def authentication(self) -> ClientAuthSettings:
        """Our authentication at the token endpoint."""
        return self.client_auth or ClientAuthSettings(audience=self.issuer)
