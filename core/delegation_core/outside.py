"""Routes to hosts outside the mesh, which never receive a user's token.

``inject``: the sidecar adds a static key that the agent never sees. ``federate``: it adds a short-lived token that the
host's provider issued for the workload's identity. ``passthrough``: the agent's own credential is sent. Each route has
one pinned host, and lists of methods and paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from delegation_core.errors import Denied, Reason
from delegation_core.prefixes import Prefixes
from delegation_core.route import Upstream
from delegation_core.route_checks import require_match, require_method, require_path

OutsideKind = Literal["inject", "federate", "passthrough"]
Provider = Literal["openai", "anthropic", "google", "azure", "aws"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A provider: the header field for its key, the ``scheme`` before the key, and paths that issue credentials.

    ``fields``: further request fields that its clients need. ``makes_credentials``: paths, with ``*`` for one segment;
    everything below such a path is included.
    """

    field: str
    scheme: str = ""
    makes_credentials: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()


def _below(roots: Sequence[str], *names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{root}/{name}" for root in roots for group in names for name in group)


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "openai": Preset(
            field="authorization",
            scheme="Bearer ",
            makes_credentials=(
                "/v1/organization",
                "/v1/realtime/sessions",
                "/v1/realtime/transcription_sessions",
                "/v1/realtime/client_secrets",
                "/v1/chatkit/sessions",
            ),
        ),
        "anthropic": Preset(
            field="x-api-key", makes_credentials=("/v1/organizations",), fields=frozenset({"anthropic-version"})
        ),
        "github": Preset(
            field="authorization",
            scheme="Bearer ",
            fields=frozenset({"x-github-api-version"}),
            makes_credentials=(
                "/app/installations",
                "/app-manifests",
                "/applications",
                "/authorizations",
                "/user/keys",
                "/user/gpg_keys",
                "/user/ssh_signing_keys",
                "/user/codespaces/secrets",
                *_below(
                    ("/orgs/*", "/organizations/*"),  # by name, and by number
                    ("personal-access-tokens", "personal-access-token-requests", "hooks", "private-registries"),
                    ("actions/runners", "actions/secrets", "codespaces/secrets", "dependabot/secrets"),
                ),
                *_below(
                    ("/repos/*/*", "/repositories/*"),
                    ("keys", "hooks", "environments/*/secrets"),
                    ("actions/runners", "actions/secrets", "codespaces/secrets", "dependabot/secrets"),
                ),
                "/enterprises/*/actions/runners",
            ),
        ),
    }
)


_HOSTS: Final[Mapping[str, Provider]] = MappingProxyType(
    {
        "api.openai.com": "openai",
        "api.anthropic.com": "anthropic",
        ".googleapis.com": "google",
        ".openai.azure.com": "azure",
        ".cognitiveservices.azure.com": "azure",
        ".services.ai.azure.com": "azure",
    }
)


def provider_at(host: str) -> Provider | None:
    """Return the provider with workload identity federation that ``host`` belongs to by its name; None if unknown."""
    if host.startswith("bedrock-runtime.") and host.endswith(".amazonaws.com"):
        return "aws"
    return next((of for name, of in _HOSTS.items() if host == name or (name[0] == "." and host.endswith(name))), None)


def credential_paths(preset: str | None, host: str) -> tuple[str, ...]:
    """Return the credential-issuing paths of ``preset`` and of the provider at ``host``."""
    return tuple(path for one in _presets(preset, host) for path in one.makes_credentials)


def client_fields(preset: str | None, host: str) -> frozenset[str]:
    """Return the request fields that clients of ``preset`` and of the provider at ``host`` need."""
    return frozenset(name for one in _presets(preset, host) for name in one.fields)


def _presets(preset: str | None, host: str) -> list[Preset]:
    at_host = "github" if host == "api.github.com" else provider_at(host) or ""
    return [PRESETS[name] for name in dict.fromkeys((preset or "", at_host)) if name in PRESETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedKey:
    """Static key of a route: its ``file``, the lower-case header ``field`` for it, and the ``scheme`` before it.

    ``owner``: the responsible person or team. ``until``: the end of the route (seconds since the epoch).
    """

    file: str
    field: str
    scheme: str
    owner: str
    until: int
    makes_credentials: tuple[str, ...] = ()

    also: ClassVar[tuple[tuple[str, str], ...]] = ()
    kind: ClassVar[str] = "inject"


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedKey:
    """Short-lived token of a route: ``provider`` issues it at ``endpoint`` for our JWT-SVID with ``audience``.

    ``terms``: the provider's own settings, by name. ``ca_file``: the CAs that verify the endpoint; None: public CAs.
    ``also``: further header fields of each call that the provider requires with such a token.
    """

    provider: Provider
    audience: str
    endpoint: str
    terms: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    also: tuple[tuple[str, str], ...] = ()
    makes_credentials: tuple[str, ...] = ()

    field: ClassVar[str] = "authorization"
    until: ClassVar[None] = None  # does not close the route: tokens are renewed
    scheme: ClassVar[str] = "Bearer "

    @property
    def kind(self) -> str:
        """Kind of the key, for records."""
        return f"federate:{self.provider}"

    def term(self, name: str) -> str | None:
        """Return the provider's setting ``name``; None if it is not set."""
        return next((value for key, value in self.terms if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideRoute:
    """One host outside the mesh, matched by ``host`` or ``prefix`` as an outbound route, and reached by https.

    The server's certificate must be for the host name, by a CA of ``ca_file`` (None: a public CA). ``paths`` are exact,
    ``path_prefixes`` match whole segments. ``key``: the credential that the sidecar adds, None for ``passthrough``.
    ``fields``: further lower-case request fields to forward.
    Before ``observe_until`` (seconds since the epoch) a call without a handle goes out with the agent's own credential.
    With ``record_first`` a call is sent only after its first record is written.

    Raises:
        ValueError: not exactly one match, plain http, no or invalid methods or paths, or a key that contradicts
            ``token`` or ``observe_until``.
    """

    protocol: ClassVar[Literal["outside"]] = "outside"  # discriminates it from other outbound routes
    name: str
    host: str | None
    prefix: str | None
    upstream: Upstream
    token: OutsideKind
    methods: frozenset[str]
    paths: frozenset[str] = frozenset()
    path_prefixes: frozenset[str] = frozenset()
    ca_file: str | None = None
    key: InjectedKey | FederatedKey | None = None
    fields: frozenset[str] = frozenset()
    observe_until: int = 0
    stream: bool = False
    deadline_s: float | None = None
    record_first: bool = False
    _prefixes: Prefixes[bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_match(self.name, self.host, self.prefix)
        if self.upstream.scheme != "https":
            raise ValueError("upstream: a host outside the mesh is reached by https; write https://")
        if not self.methods or not (self.paths or self.path_prefixes):
            raise ValueError("a route outside the mesh needs methods and paths")
        for method in self.methods:
            require_method(method)
        for path in self.paths:
            require_path(path, prefix=False)
        for path in self.path_prefixes:
            require_path(path, prefix=True)
        kinds = {InjectedKey: "inject", FederatedKey: "federate", type(None): "passthrough"}
        if kinds[type(self.key)] != self.token:
            raise ValueError("token: inject needs a static key, federate a provider, passthrough neither")
        if self.key is not None and self.observe_until:
            raise ValueError("observe_until: the sidecar's key needs a request; remove it")
        object.__setattr__(self, "_prefixes", Prefixes(dict.fromkeys(self.path_prefixes, True)))

    @property
    def authority(self) -> bytes:
        """Value of Host for the upstream, without the default port 443 (RFC 9110 section 4.2.2)."""
        host = f"[{self.upstream.host}]" if ":" in self.upstream.host else self.upstream.host
        return (host if self.upstream.port == 443 else f"{host}:{self.upstream.port}").encode("ascii")

    def check(self, method: str, path: str) -> None:
        """Check that the route permits ``method`` and the canonical ``path``.

        Raises:
            Denied: TARGET_DENIED (the path is not listed, or issues credentials), METHOD_REFUSED.
        """
        if path not in self.paths and self._prefixes.longest(path)[1] is None:
            raise Denied(Reason.TARGET_DENIED, "the route does not list this path")
        if self.key is not None and makes_credentials(path, self.key.makes_credentials):
            raise Denied(Reason.TARGET_DENIED, "the path gives out credentials")
        if method not in self.methods:
            raise Denied(Reason.METHOD_REFUSED)


def makes_credentials(path: str, patterns: Sequence[str]) -> bool:
    """True if ``path`` is at or below one of ``patterns``; case and empty segments are ignored."""
    segments = _segments(path)
    return any(_covers(_segments(pattern), segments) for pattern in patterns)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.lower().split("/") if segment]


def _covers(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    if len(segments) < len(pattern):
        return False
    return all(wanted in ("*", segment) for wanted, segment in zip(pattern, segments, strict=False))
