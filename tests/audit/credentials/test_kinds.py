from __future__ import annotations

import re
from pathlib import Path

import pytest

from delegation_audit.credentials.kinds import KINDS, RULES, Kind, find_kind


def test_every_kind_is_declared_with_a_reach() -> None:
    assert set(KINDS) == set(Kind)
    assert [rule.id for rule in RULES] == [kind.value for kind in KINDS]
    assert all(1 <= declared.reach <= 5 for declared in KINDS.values())


def test_the_page_lists_every_kind() -> None:
    page = (Path(__file__).parents[3] / "docs" / "credentials.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == [kind.value for kind in KINDS]


@pytest.mark.parametrize(
    ("rule", "kind", "provider"),
    [
        ("betterleaks.openai-api-key", Kind.MODEL_PROVIDER_KEY, "OpenAI"),
        ("betterleaks.gcp-gemini-api", Kind.MODEL_PROVIDER_KEY, "Google"),
        ("betterleaks.gcp-service-account", Kind.GCP_SERVICE_ACCOUNT_KEY, "Google"),
        ("betterleaks.aws-access-token", Kind.AWS_ACCESS_KEY, "AWS"),
        ("betterleaks.azure-storage-account-key", Kind.AZURE_KEY, "Azure"),
        ("betterleaks.github-fine-grained-pat", Kind.GIT_HOST_TOKEN, "GitHub"),
        ("betterleaks.mongodb-connection-string", Kind.DATABASE_PASSWORD, None),
        ("betterleaks.private-key", Kind.PRIVATE_KEY, None),
        ("betterleaks.slack-webhook-url", Kind.SERVICE_TOKEN, "Slack"),
        ("veles.secrets/sendgrid", Kind.SERVICE_TOKEN, "SendGrid"),
    ],
)
def test_a_rule_of_the_library_has_one_of_our_kinds(rule: str, kind: Kind, provider: str | None) -> None:
    found = find_kind(rule)
    assert found is not None
    assert (found.kind, found.provider) == (kind, provider)


@pytest.mark.parametrize(
    "name",
    [
        *("adobe-client-id", "segment-public-api-token.1", "lob-pub-api-key", "gitlab-cicd-job-token", "jwt"),
        *("aws-amazon-bedrock-api-key-short-lived", "aws-session-token", "slack-session-cookie", "curl-auth-user"),
    ],
)
def test_identifiers_public_keys_and_short_lived_tokens_have_none(name: str) -> None:
    assert find_kind(f"betterleaks.{name}") is None
