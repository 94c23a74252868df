from __future__ import annotations

import base64
import json
import re

import pytest

from delegation_audit.credentials.forms import LONG_LIFE_S, recognise
from delegation_audit.credentials.kinds import Kind
from tests.audit.credentials.drawn import KEY, PASSWORD

WORDLESS = re.sub(r"\d", "", KEY)  # letters only
NOW = 1_790_000_000


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def jwt(**claims: object) -> str:
    parts = ({"alg": "RS256"}, {"sub": "agent", **claims})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join((*encoded, KEY + KEY))


@pytest.mark.parametrize(
    ("value", "kind", "secret"),
    [
        (basic("agent", PASSWORD), Kind.BASIC_CREDENTIALS, PASSWORD),
        (f"Authorization: {basic('agent', PASSWORD)}", Kind.BASIC_CREDENTIALS, PASSWORD),
        (f"Bearer {KEY}", Kind.BEARER_TOKEN, KEY),
        (f"https://agent:{PASSWORD}@crm.internal/x", Kind.BASIC_CREDENTIALS, PASSWORD),
        (f"postgresql://agent:{PASSWORD}@db:5432/x", Kind.DATABASE_PASSWORD, PASSWORD),
        (f"mongodb+srv://agent:{PASSWORD}@db/x", Kind.DATABASE_PASSWORD, PASSWORD),
        (f"redis://:{PASSWORD}@cache:6379/0", Kind.DATABASE_PASSWORD, PASSWORD),
        ("postgres://agent:a%40b%2Fc9@db/x", Kind.DATABASE_PASSWORD, "a@b/c9"),
        (f"https://mcp.internal/sse?a=b&api_key={KEY}", Kind.API_KEY, KEY),
        (f"https://mcp.internal/sse?a=b&amp;api_key={KEY}", Kind.API_KEY, KEY),
        *((f"https://x/y?{name}={KEY}", Kind.API_KEY, KEY) for name in ("key", "apikey", "X-Api-Key", "refresh_token")),
        (f"https://x/y?client_secret={KEY}", Kind.OAUTH_CLIENT_SECRET, KEY),
        (f"https://x/y?user=a&password={PASSWORD}", Kind.PASSWORD, PASSWORD),
        (f"https://x/y?token={WORDLESS}", Kind.API_KEY, WORDLESS),
        (f"Server=db;Database=crm;User Id=agent;Password={PASSWORD};", Kind.DATABASE_PASSWORD, PASSWORD),
        (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY}==", Kind.AZURE_KEY, KEY + "=="),
    ],
)
def test_a_form_holds_a_secret(value: str, kind: Kind, secret: str) -> None:
    found = recognise(value, now=NOW)
    assert found is not None
    assert (found.kind, found.secret) == (kind, secret)


@pytest.mark.parametrize(
    "value",
    [
        *("Basic plan for users", "Basic !!!!!!!!", basic("agent", ""), "https://crm.internal/x", "Bearer short"),
        *("https://agent@crm.internal/x", "https://x/y?page=12", "https://x/?token=short1", KEY, "Password=only-this1"),
        *(
            f"https://x/?{pair}"
            for pair in ("token=abcdefghijklmnop", "key=user-profile-42", "key=202611240000", "code=a1")
        ),
        *(
            f"https://x/?{pair}"
            for pair in (f"page={KEY}", f"key_id={KEY}", "password=changing", "client_secret=short1")
        ),
    ],
)
def test_another_text_has_no_form(value: str) -> None:
    assert recognise(value, now=NOW) is None


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({}, Kind.BEARER_TOKEN),
        ({"iat": NOW, "exp": NOW + LONG_LIFE_S + 1}, Kind.BEARER_TOKEN),
        ({"iat": NOW, "exp": NOW + LONG_LIFE_S}, None),
        ({"exp": NOW + LONG_LIFE_S + 1}, Kind.BEARER_TOKEN),
        ({"exp": NOW + 60}, None),
        ({"iat": NOW - 10 * LONG_LIFE_S, "exp": NOW}, None),
        ({"exp": "never"}, Kind.BEARER_TOKEN),
        ({"exp": True}, Kind.BEARER_TOKEN),
    ],
)
def test_a_signed_token_counts_if_it_lives_for_more_than_a_day(claims: dict[str, object], kind: Kind | None) -> None:
    token = jwt(**claims)
    for value in (token, f"Bearer {token}"):
        found = recognise(value, now=NOW)
        assert found is not None
        assert (found.kind, found.secret) == (kind, token)


def test_the_end_and_the_target_are_told() -> None:
    token = recognise(jwt(iat=NOW, exp=NOW + 10 * LONG_LIFE_S), now=NOW)
    url = recognise(f"https://agent:{PASSWORD}@crm.internal:8443/x", now=NOW)
    assert token is not None
    assert token.expires == "2026-10-01"
    assert url is not None
    assert url.target == "crm.internal:8443"


@pytest.mark.parametrize("url", [f"https://{PASSWORD}@crm.internal/x?key={KEY}", f"https://crm.internal/x?key={KEY}"])
def test_the_target_of_a_key_is_the_host_without_a_user(url: str) -> None:
    found = recognise(url, now=NOW)
    assert found is not None
    assert (found.secret, found.target) == (KEY, "crm.internal")
