"""Writes settings of a sidecar that retire a credential: a route that needs no key of the agent's.

A provider that accepts a workload's identity needs no key at all (``federate``). For others the sidecar holds the key,
with an owner and an end date (``inject``), or the target gets a sidecar of its own (``exchange``). An unknown host is
written as HOST, which `sidecar check` refuses.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from delegation_audit.credentials.kinds import Kind

# Kinds whose target can have a sidecar of its own, with the name and meaning of the route.
_EXCHANGED: Final = {
    Kind.API_KEY: ("target", "the target, beside a sidecar of its own"),
    Kind.BASIC_CREDENTIALS: ("target", "the target, beside a sidecar of its own"),
    Kind.BEARER_TOKEN: ("target", "the target, beside a sidecar of its own"),
    Kind.PASSWORD: ("target", "the target, beside a sidecar of its own"),
    Kind.DATABASE_PASSWORD: ("data", "a tool server in front of the database"),
    Kind.OAUTH_CLIENT_SECRET: ("target", "the service that the client's tokens were for"),
    Kind.CLIENT_WITHOUT_DELEGATION: ("target", "the service that the client calls"),
    Kind.PASSWORD_GRANT: ("target", "the service that the client calls"),
}
# Kinds that an identity replaces; below, the settings for it.
_IDENTIFIED: Final = frozenset((Kind.PRIVATE_KEY, Kind.CLIENT_CERTIFICATE, Kind.KUBERNETES_TOKEN))
_IDENTITY: Final = """\
identity:
  workload_api: unix:///spiffe-workload-api/spire-agent.sock   # keys in memory, renewed by SPIRE
"""
_EXCHANGE: Final = """\
outbound:
  routes:
    - name: {name}
      match: {{host: {name}.mesh}}                     # {means}
      upstream: https://HOST:7443
      peer: "spiffe://acme.example/tool/{name}"
      audience: "spiffe://acme.example/tool/{name}"
      scopes: [docs.read]                     # the most that a call may carry
"""
_OUTSIDE: Final = """\
# also: the route's name in may_call of the inbound routes that need it, the host in the platform file ({kind})
outbound:
  routes:
    - name: {name}
      match: {{prefix: /{name}}}   # the agent's base URL: http://127.0.0.1:7080/{name}
      upstream: https://{host}
      methods: [{methods}]
      path_prefixes: [{path}]   # as narrow as the agent's calls
"""
_FEDERATE: Final = """\
      token: federate   # no static key: the provider accepts the workload's identity
      federate:
"""
_INJECT: Final = """\
      token: inject   # the sidecar holds the key; the agent presents the handle of the request that it serves
      inject:
        {form}
        file: /var/run/keys/{name}   # mounted only in the sidecar's container
        owner: TEAM
        until: "{until}"   # the route closes on this day: before, replace the key and set a new day
"""
# By provider: the route's name, the upstream, the path of its models, and the terms of the federation.
_FEDERATED: Final = {
    "OpenAI": ("openai", "api.openai.com", "/v1/responses", {
        "audience": "https://api.openai.com/v1", "identity_provider_id": "idp_01ABC", "service_account_id": "sa_01ABC",
    }),
    "Anthropic": ("anthropic", "api.anthropic.com", "/v1/messages", {
        "audience": "https://api.anthropic.com", "federation_rule_id": "fdrl_01ABC",
        "organization_id": "0b9c6c4e-8a1f-4b0e-9d55-3f4f0a6b2c11", "service_account_id": "svac_01ABC",
    }),
    "Google": ("google", "europe-west4-aiplatform.googleapis.com", "/v1/projects/acme", {
        "audience": "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/mesh/providers/spire",
        "pool_provider": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/mesh/providers/spire",
    }),
    "Azure": ("azure", "HOST", "/openai/deployments", {
        "audience": "api://AzureADTokenExchange", "tenant_id": "acme.example",
        "client_id": "0b9c6c4e-8a1f-4b0e-9d55-3f4f0a6b2c11", "scope": "https://cognitiveservices.azure.com/.default",
    }),
    "AWS": ("aws", "bedrock-runtime.eu-central-1.amazonaws.com", "/model", {
        "audience": "sts.amazonaws.com", "role_arn": "arn:aws:iam::123456789012:role/agent",
        "session_name": "writer", "region": "eu-central-1",
    }),
}  # fmt: skip
# Hosts that take a provider's key as a bearer token, with the path of their API.
_HOSTS: Final = {
    "github": ("api.github.com", "/repos"), "gitlab": ("gitlab.com", "/api/v4"),
    "sendgrid": ("api.sendgrid.com", "/v3"), "airtable": ("api.airtable.com", "/v0"),
    "slack": ("slack.com", "/api"), "stripe": ("api.stripe.com", "/v1"), "notion": ("api.notion.com", "/v1"),
    "mistral": ("api.mistral.ai", "/v1"), "cohere": ("api.cohere.com", "/v2"), "groq": ("api.groq.com", "/openai/v1"),
    "deepseek": ("api.deepseek.com", "/v1"), "openrouter": ("openrouter.ai", "/api/v1"), "xai": ("api.x.ai", "/v1"),
    "hugging-face": ("router.huggingface.co", "/v1"), "replicate": ("api.replicate.com", "/v1"),
}  # fmt: skip
_SAME: Final = {"Azure OpenAI": "Azure"}
_BY_KIND: Final = {Kind.AWS_ACCESS_KEY: "AWS", Kind.GCP_SERVICE_ACCOUNT_KEY: "Google", Kind.AZURE_KEY: "Azure"}
_INJECTED: Final = frozenset((Kind.MODEL_PROVIDER_KEY, Kind.GIT_HOST_TOKEN, Kind.SERVICE_TOKEN))
_KEY_DAYS: Final = 90
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,20}")
_HOST: Final = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,5}(?::\d{1,5})?")


def settings_for(kind: Kind, provider: str | None = None, target: str | None = None) -> str | None:
    """Return settings of the agent's sidecar that replace the credential; None if no settings can.

    ``target``: the host that accepts the credential, if the audit saw it.
    """
    if kind in _IDENTIFIED:
        return _IDENTITY
    named = _BY_KIND.get(kind) or (_SAME.get(provider or "", provider) if kind is Kind.MODEL_PROVIDER_KEY else None)
    if named in _FEDERATED:
        return _write_federate(named)
    word = (provider or "").lower().replace(" ", "-")
    if kind in _INJECTED:
        return _write_inject(word if _NAME.fullmatch(word) else "service", target, read=kind is Kind.GIT_HOST_TOKEN)
    if kind not in _EXCHANGED:
        return None
    name, means = _EXCHANGED[kind]
    return _EXCHANGE.format(name=word if _NAME.fullmatch(word) else name, means=means)


def _write_federate(provider: str) -> str:
    name, host, path, terms = _FEDERATED[provider]
    route = _OUTSIDE.format(kind="federate", name=name, host=host, methods="POST", path=path)
    if provider == "AWS":
        route = "# for Amazon Bedrock; other services of AWS require a signature of each request\n" + route
    section = "".join(f"        {key}: {value}\n" for key, value in {"provider": name, **terms}.items())
    return route + _FEDERATE + section


def _write_inject(name: str, target: str | None, *, read: bool) -> str:
    form = "preset: github" if name == "github" else "field: authorization\n        scheme: Bearer"
    host, path = _HOSTS.get(name, ("HOST", "/v1"))
    host = target if host == "HOST" and target and _HOST.fullmatch(target) else host
    route = _OUTSIDE.format(kind="inject", name=name, host=host, methods="GET" if read else "POST", path=path)
    until = datetime.now(UTC).date() + timedelta(days=_KEY_DAYS)
    return route + _INJECT.format(name=name, form=form, until=until)
