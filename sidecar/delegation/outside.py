"""Routes to hosts outside the mesh, where no token of a user goes.

``inject``: the call carries a static key that the sidecar holds and the agent never sees. ``federate``: it carries a
short-lived token for which the host's provider took the workload's own identity. ``passthrough``: the agent's own
credential. Each is bound to one pinned host, and to methods and paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from sidecar.delegation.prefixes import Prefixes
from sidecar.delegation.route import Upstream, require_match, require_method, require_path
from sidecar.errors import Denied, Reason

OutsideKind = Literal["inject", "federate", "passthrough"]
Provider = Literal["openai", "anthropic", "google", "azure", "aws"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A provider: the field that takes its key, the ``scheme`` before the key, and paths that give out credentials.

    ``fields`` are request fields that its clients need, beside those that go to every host.
    In ``makes_credentials`` a ``*`` stands for one segment; everything below such a path counts too.
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
    """Return the provider of a host that takes tokens for a workload's identity, as far as its name tells."""
    if host.startswith("bedrock-runtime.") and host.endswith(".amazonaws.com"):
        return "aws"
    return next((of for name, of in _HOSTS.items() if host == name or (name[0] == "." and host.endswith(name))), None)


def credential_paths(preset: str | None, host: str) -> tuple[str, ...]:
    """Return the paths that give out credentials: those of the preset, and of the provider at this host."""
    return tuple(path for one in _presets(preset, host) for path in one.makes_credentials)


def client_fields(preset: str | None, host: str) -> frozenset[str]:
    """Return the request fields that clients of the preset, and of the provider at this host, need."""
    return frozenset(name for one in _presets(preset, host) for name in one.fields)


def _presets(preset: str | None, host: str) -> list[Preset]:
    at_host = "github" if host == "api.github.com" else provider_at(host) or ""
    return [PRESETS[name] for name in dict.fromkeys((preset or "", at_host)) if name in PRESETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedKey:
    """The static key of a route: its ``file``, the (lower-case) field that carries it, and the scheme before it.

    ``owner`` answers for it; at ``until`` (seconds since the epoch) the route closes.
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
    """The short-lived token of a route: ``provider`` issues it at ``endpoint`` for our JWT-SVID for ``audience``.

    ``terms`` are the provider's own settings, by name. ``ca_file`` certifies the endpoint; None: a public authority.
    ``also`` are further fields of each call, which the provider needs beside such a token.
    """

    provider: Provider
    audience: str
    endpoint: str
    terms: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    also: tuple[tuple[str, str], ...] = ()
    makes_credentials: tuple[str, ...] = ()

    field: ClassVar[str] = "authorization"
    until: ClassVar[None] = None  # another one is fetched when it ends
    scheme: ClassVar[str] = "Bearer "

    @property
    def kind(self) -> str:
        """Way in which the key was obtained, for records."""
        return f"federate:{self.provider}"

    def term(self, name: str) -> str | None:
        """Return one of the provider's own settings; None if it is not set."""
        return next((value for key, value in self.terms if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideRoute:
    """One host outside the mesh: ``match`` as for an outbound route, the ``upstream`` over https.

    Its certificate must be for the host's name, by an authority of ``ca_file``; None: by a public one. ``paths`` are
    exact, ``path_prefixes`` by whole segments. ``key`` is what the sidecar puts on a call, None for ``passthrough``.
    ``fields`` are the (lower-case) request fields that go beside it, besides the usual ones.
    Before ``observe_until`` (seconds since the epoch) a call without a handle goes out with the agent's own credential.
    With ``record_first`` a call leaves when its first record is written.

    Raises:
        ValueError: no single match, plain http, no method or path, a key where none belongs, or one that observes.
    """

    protocol: ClassVar[Literal["outside"]] = "outside"  # tells it from a mesh route
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
            raise ValueError("a route outside the mesh names its methods and paths")
        for method in self.methods:
            require_method(method)
        for path in self.paths:
            require_path(path, prefix=False)
        for path in self.path_prefixes:
            require_path(path, prefix=True)
        kinds = {InjectedKey: "inject", FederatedKey: "federate", type(None): "passthrough"}
        if kinds[type(self.key)] != self.token:
            raise ValueError("token: an inject route has a static key, a federate route a provider, and no other one")
        if self.key is not None and self.observe_until:
            raise ValueError("observe_until: the sidecar's key needs a request; remove it")
        object.__setattr__(self, "_prefixes", Prefixes(dict.fromkeys(self.path_prefixes, True)))

    @property
    def authority(self) -> bytes:
        """The Host of requests to it: without the port of https (RFC 9110 section 4.2.2)."""
        host = f"[{self.upstream.host}]" if ":" in self.upstream.host else self.upstream.host
        return (host if self.upstream.port == 443 else f"{host}:{self.upstream.port}").encode("ascii")

    def check(self, method: str, path: str) -> None:
        """Check that the route covers this call of a canonical path.

        Raises:
            Denied: TARGET_DENIED (the path is not listed, or gives out credentials), METHOD_REFUSED.
        """
        if path not in self.paths and self._prefixes.longest(path)[1] is None:
            raise Denied(Reason.TARGET_DENIED, "the route does not list this path")
        if self.key is not None and makes_credentials(path, self.key.makes_credentials):
            raise Denied(Reason.TARGET_DENIED, "the path gives out credentials")
        if method not in self.methods:
            raise Denied(Reason.METHOD_REFUSED)


def makes_credentials(path: str, patterns: Sequence[str]) -> bool:
    """True if a path is, or is below, one that gives out credentials. Case and empty segments do not count."""
    segments = _segments(path)
    return any(_covers(_segments(pattern), segments) for pattern in patterns)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.lower().split("/") if segment]


def _covers(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    if len(segments) < len(pattern):
        return False
    return all(wanted in ("*", segment) for wanted, segment in zip(pattern, segments, strict=False))
