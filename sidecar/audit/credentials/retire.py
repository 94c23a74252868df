"""Ways to retire a credential, as settings of a sidecar: a route to the target instead of a key for it."""

from __future__ import annotations

import re
from typing import Final

from sidecar.audit.credentials.kinds import Kind

# Kinds whose target can stand behind a sidecar of its own; the others have a cure outside our settings.
_ROUTED: Final = {
    Kind.MODEL_PROVIDER_KEY: ("model", "a gateway that holds the provider's key"),
    Kind.SERVICE_TOKEN: ("service", "a tool server that holds the service's token"),
    Kind.API_KEY: ("target", "the target, beside a sidecar of its own"),
    Kind.BASIC_CREDENTIALS: ("target", "the target, beside a sidecar of its own"),
    Kind.BEARER_TOKEN: ("target", "the target, beside a sidecar of its own"),
    Kind.PASSWORD: ("target", "the target, beside a sidecar of its own"),
    Kind.DATABASE_PASSWORD: ("data", "a tool server in front of the database"),
    Kind.OAUTH_CLIENT_SECRET: ("target", "the service that the client's tokens were for"),
    Kind.CLIENT_WITHOUT_DELEGATION: ("target", "the service that the client calls"),
    Kind.PASSWORD_GRANT: ("target", "the service that the client calls"),
}
# Settings that give the workload an identity instead of a key.
_IDENTIFIED: Final = frozenset((Kind.PRIVATE_KEY, Kind.CLIENT_CERTIFICATE, Kind.KUBERNETES_TOKEN))
_IDENTITY: Final = """\
identity:
  workload_api: unix:///spiffe-workload-api/spire-agent.sock   # keys in memory, renewed by SPIRE
"""
_ROUTE: Final = """\
outbound:
  routes:
    - name: {name}
      match: {{host: {name}.mesh}}                     # {means}
      upstream: https://{name}.internal:7443
      peer: "spiffe://acme.example/tool/{name}"
      audience: "spiffe://acme.example/tool/{name}"
      scopes: [docs.read]                     # the most that a call may carry
"""


def settings_for(kind: Kind, provider: str | None = None) -> str | None:
    """Return settings of the agent's sidecar that replace the credential; None if its cure is elsewhere."""
    if kind in _IDENTIFIED:
        return _IDENTITY
    if kind not in _ROUTED:
        return None
    name, means = _ROUTED[kind]
    word = (provider or "").lower().replace(" ", "-")
    if re.fullmatch(r"[a-z][a-z0-9-]{1,20}", word):
        name = word
    return _ROUTE.format(name=name, means=means)
