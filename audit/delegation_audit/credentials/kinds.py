"""Kinds of credentials with their rules, and the mapping from the detector library's rules to kinds."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

from delegation_audit.rules import Rule, Severity


class Kind(StrEnum):
    """Kinds of credentials. The words are stable: they are rule ids."""

    MODEL_PROVIDER_KEY = "model-provider-key"
    AWS_ACCESS_KEY = "aws-access-key"
    GCP_SERVICE_ACCOUNT_KEY = "gcp-service-account-key"
    AZURE_KEY = "azure-key"
    GIT_HOST_TOKEN = "git-host-token"  # noqa: S105
    SERVICE_TOKEN = "service-token"  # noqa: S105
    DATABASE_PASSWORD = "database-password"  # noqa: S105
    BASIC_CREDENTIALS = "basic-credentials"
    BEARER_TOKEN = "bearer-token"  # noqa: S105
    PRIVATE_KEY = "private-key"
    CLIENT_CERTIFICATE = "client-certificate"
    OAUTH_CLIENT_SECRET = "oauth-client-secret"  # noqa: S105
    KUBERNETES_TOKEN = "kubernetes-token"  # noqa: S105
    API_KEY = "api-key"
    PASSWORD = "password"  # noqa: S105
    PASSWORD_GRANT = "password-grant"  # noqa: S105
    CLIENT_WITHOUT_DELEGATION = "client-without-delegation"
    STATIC_KEY_IN_USE = "static-key-in-use"
    RANDOM_TEXT = "random-text"


class Declared(NamedTuple):
    """A kind's rule, and its reach: from 1 (one service) to 5 (a whole account)."""

    rule: Rule
    reach: int


_NHI: Final = "OWASP Non-Human Identities Top 10, NHI7 Long-Lived Secrets"
_LEAK: Final = "OWASP Non-Human Identities Top 10, NHI2 Secret Leakage"
_BCP: Final = "RFC 9700 section 2.5"


def _declare(
    kind: Kind, severity: Severity, reach: int, title: str, why: str, fix: str, standard: str
) -> tuple[Kind, Declared]:
    rule = Rule(id=kind.value, title=title, severity=severity, why=why, fix=fix, standard=standard)
    return kind, Declared(rule, reach)


KINDS: Final[dict[Kind, Declared]] = dict(
    (
        _declare(
            Kind.MODEL_PROVIDER_KEY,
            Severity.HIGH,
            3,
            "Key of a model provider",
            "To the provider, all agents with the key are one caller, for every user, until the key is rotated.",
            "Let the provider accept the workload's identity (`token: federate`), without any key. If it cannot,"
            " let the sidecar hold the key (`token: inject`), with an owner and an end date.",
            _NHI,
        ),
        _declare(
            Kind.AWS_ACCESS_KEY,
            Severity.CRITICAL,
            5,
            "AWS access key",
            "The key never expires and holds all permissions of its IAM user, from anywhere.",
            "Trust SPIRE's OIDC issuer in IAM and assume a role with a JWT-SVID (AssumeRoleWithWebIdentity), or use"
            " IAM Roles Anywhere with the X.509-SVID; then delete the IAM user's key.",
            _NHI,
        ),
        _declare(
            Kind.GCP_SERVICE_ACCOUNT_KEY,
            Severity.CRITICAL,
            5,
            "Google Cloud service account key",
            "The key lives for years and is the service account, from anywhere.",
            "Configure a workload identity pool with SPIRE's OIDC issuer as provider and delete the key.",
            _NHI,
        ),
        _declare(
            Kind.AZURE_KEY,
            Severity.CRITICAL,
            5,
            "Azure key or client secret",
            "The key is an application or a storage account, from anywhere, until it is rotated.",
            "Add a federated identity credential with SPIRE's OIDC issuer to the application and delete the secret;"
            " for storage, assign a role to it and disable shared keys.",
            _NHI,
        ),
        _declare(
            Kind.GIT_HOST_TOKEN,
            Severity.CRITICAL,
            4,
            "Token of a Git host",
            "The token reads or writes code as the person or robot it belongs to.",
            "In a pipeline use its own OIDC or job token. For an agent let the sidecar hold the token"
            " (`token: inject`), on the paths that the agent needs.",
            _NHI,
        ),
        _declare(
            Kind.SERVICE_TOKEN,
            Severity.HIGH,
            3,
            "Token of a hosted service",
            "Whoever holds the token is the integration: the service cannot tell agents or users apart.",
            "Let the sidecar hold the token (`token: inject`): the agent presents the handle of the request that it"
            " serves.",
            _NHI,
        ),
        _declare(
            Kind.DATABASE_PASSWORD,
            Severity.HIGH,
            4,
            "Database password",
            "The database sees one account for every agent and user, and the password is in every copy of the file.",
            "Authenticate with the X.509-SVID (client certificates) or put a tool server in front of the database.",
            _NHI,
        ),
        _declare(
            Kind.BASIC_CREDENTIALS,
            Severity.HIGH,
            3,
            "Basic credentials",
            "A user name and password travel with every call, and the target cannot identify the caller behind them.",
            "Put a sidecar beside the target and let agents reach it by a route, with a token for each call.",
            _NHI,
        ),
        _declare(
            Kind.BEARER_TOKEN,
            Severity.HIGH,
            3,
            "Long-lived bearer token",
            "Whoever copies the token is its subject until it expires, which is more than a day away or never.",
            "Let the sidecar exchange a token for each target instead; it lives for minutes.",
            _BCP,
        ),
        _declare(
            Kind.PRIVATE_KEY,
            Severity.HIGH,
            4,
            "Private key in a file",
            "Whoever has the file can prove the identity for as long as the certificate or registration lasts.",
            "Let SPIRE issue keys to the workload: they live in memory, for an hour.",
            "SPIFFE X.509-SVID section 4.4",
        ),
        _declare(
            Kind.CLIENT_CERTIFICATE,
            Severity.MEDIUM,
            3,
            "Certificate registered as a client's credential",
            "The private key behind it is long-lived and stored at the client.",
            "Replace it by a federated identity credential for the client's SPIFFE ID.",
            _BCP,
        ),
        _declare(
            Kind.OAUTH_CLIENT_SECRET,
            Severity.HIGH,
            4,
            "OAuth client secret",
            "The secret obtains tokens as the client, without a user: such calls involve no delegation.",
            "Let the client authenticate with its SVID (our token service does, RFC 8705), or with a JWT-SVID as client"
            " assertion; then delete the secret.",
            _BCP,
        ),
        _declare(
            Kind.KUBERNETES_TOKEN,
            Severity.HIGH,
            4,
            "Long-lived Kubernetes service account token",
            "The token never expires and is the service account, also outside the cluster.",
            "Delete the Secret and mount a projected token, which lives for an hour and is bound to its pod.",
            "Kubernetes: Managing Service Accounts",
        ),
        _declare(
            Kind.API_KEY,
            Severity.MEDIUM,
            2,
            "API key",
            "Whoever holds the key is its owner to the target, which cannot tell agents or users apart.",
            "Put a sidecar beside the target and let agents reach it by a route, with a token for each call.",
            _NHI,
        ),
        _declare(
            Kind.PASSWORD,
            Severity.MEDIUM,
            2,
            "Password",
            "The password is in every copy of the file, and the target sees one account for every user.",
            "Authenticate with the workload's SVID instead, or put a sidecar beside the target.",
            _LEAK,
        ),
        _declare(
            Kind.PASSWORD_GRANT,
            Severity.HIGH,
            4,
            "Client that may log in with users' passwords",
            "Direct access grants let the client take a user's password and act as that user: impersonation.",
            "Turn off direct access grants for the client; let users log in at an entry.",
            "RFC 9700 section 2.4",
        ),
        _declare(
            Kind.CLIENT_WITHOUT_DELEGATION,
            Severity.HIGH,
            4,
            "OAuth client that calls for itself",
            "Its tokens name no actor, so a static credential of the client is the only proof behind the call.",
            "Let the workload exchange its caller's token at the token service; the route then names the actor.",
            "RFC 8693 section 1.1",
        ),
        _declare(
            Kind.STATIC_KEY_IN_USE,
            Severity.MEDIUM,
            3,
            "Static key on calls out of the mesh",
            "The host sees the key, not the user; whoever has the key can make the same calls until it is replaced.",
            "Use `token: federate` if the host accepts a workload's identity, else `token: inject` with an end date.",
            _NHI,
        ),
        _declare(
            Kind.RANDOM_TEXT,
            Severity.LOW,
            1,
            "Text that looks random",
            "Only the text's entropy suggests a secret; it is not counted.",
            "Look at it once; use --ignore random-text if it is not a secret.",
            _LEAK,
        ),
    )
)

RULES: Final = tuple(declared.rule for declared in KINDS.values())

# Model providers, as prefixes of the library's rules or parts of field names.
PROVIDERS: Final = (
    *("openai", "anthropic", "azure-openai", "mistral", "cohere", "huggingface", "groq", "deepseek", "perplexity"),
    *("openrouter", "togetherai", "replicate", "xai", "cerebras", "voyageai", "stability-ai", "nvidia", "kimi"),
    *("minimax", "elevenlabs", "ollama", "assemblyai", "deepgram", "cartesia", "fal", "upstage", "zai", "fireworks"),
)
_GOOGLE: Final = ("gcp-api-key", "gcp-gemini-api")
_DATABASES: Final = ("mongodb-connection-string", "planetscale-password")
# Rules for identifiers, public keys and short-lived secrets: none finds a long-lived secret.
_NO_SECRET: Final = re.compile(
    r"-id(?:\.\d)?$|-pub-|-public-|-url(?:\.\d)?$|-browser-|-app-id|-host|project-api-key$|session|short-lived"
    r"|cicd-job-token|encryption-key$|devcycle-client|devcycle-mobile|configcat|credential-uri"
    r"|^curl-|^kubernetes-secret|^jwt|^aws-secret|^brave-|^polymarket-address|^segment-public|^disqus|^docker-swarm-join"
)


# Names as their owners write them; all others are capitalised. No name is the beginning of a secret.
_NAMES: Final = {
    "github": "GitHub",
    "gitlab": "GitLab",
    "openai": "OpenAI",
    "azure-openai": "Azure OpenAI",
    "aws": "AWS",
    "huggingface": "Hugging Face",
    "xai": "xAI",
    "deepseek": "DeepSeek",
    "sendgrid": "SendGrid",
    "npm": "npm",
}


class Known(NamedTuple):
    """The kind that a rule of the library finds, and the provider, or None if unknown."""

    kind: Kind
    provider: str | None


def provider_name(word: str) -> str:
    """Return the display name of a provider."""
    return _NAMES.get(word) or word.replace("-", " ").capitalize()


def find_kind(rule_id: str) -> Known | None:
    """Return the kind for a rule of the library; None for short-lived or public values, and those that we judge."""
    kind, word = _find_known(rule_id.removeprefix("betterleaks.").removeprefix("veles.secrets/"))
    return None if kind is None else Known(kind, None if word is None else provider_name(word))


def _find_known(name: str) -> tuple[Kind | None, str | None]:
    if name in _GOOGLE:
        return Kind.MODEL_PROVIDER_KEY, "google"
    if name == "gcp-service-account":
        return Kind.GCP_SERVICE_ACCOUNT_KEY, "google"
    if name.startswith("aws-access-token") or name == "aws-amazon-bedrock-api-key-long-lived":
        return Kind.AWS_ACCESS_KEY, "aws"
    if _NO_SECRET.search(name) and not name.endswith("webhook-url"):
        return None, None
    provider = next((one for one in PROVIDERS if name == one or name.startswith(f"{one}-")), None)
    if provider is not None or name == "grokxaiapikey":
        return Kind.MODEL_PROVIDER_KEY, provider or "xai"
    if name.startswith("azure-"):
        return Kind.AZURE_KEY, "azure"
    if name.startswith(("github-", "gitlab-", "bitbucket", "gitea-", "sourcegraph-", "codecommit", "codecatalyst")):
        return Kind.GIT_HOST_TOKEN, re.split(r"[-.]", name)[0]
    if name in _DATABASES:
        return Kind.DATABASE_PASSWORD, None
    if name in ("private-key", "age-secret-key"):
        return Kind.PRIVATE_KEY, None
    return Kind.SERVICE_TOKEN, re.split(r"[-.]", name)[0]
