"""Codes of the development issuer: the client that asked gets a token for what it asked, once; each with one change."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from sidecar_dev.codes import CODE_LIFE_S, MAX_CODES
from sidecar_dev.login import LoginError, LoginSettings, UserIssuer

SETTINGS = LoginSettings(users={"alice": None, "bob": "sesame"}, clients=frozenset({"ide"}), life_s=600)
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
ASKED = {
    "response_type": "code", "client_id": "ide", "redirect_uri": "http://127.0.0.1:3000/callback", "state": "s",
    "code_challenge": CHALLENGE, "code_challenge_method": "S256", "scope": "docs", "resource": "https://door.example",
}  # fmt: skip


class World:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0
        self.issuer = UserIssuer("http://127.0.0.1:7300", SETTINGS, clock=lambda: self.now)

    def code(self, user: str = "alice", password: str = "", **changes: str) -> str:
        asked = self.issuer.asked(urlencode({**ASKED, **changes}))
        back = self.issuer.let_in(asked, urlencode({"username": user, "password": password}).encode())
        told = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        assert (told["state"], told["iss"]) == ("s", self.issuer.issuer)
        return told["code"]

    def redeem(self, code: str, **changes: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code", "code": code, "client_id": "ide", "code_verifier": VERIFIER,
            "redirect_uri": ASKED["redirect_uri"], "resource": ASKED["resource"], **changes,
        }  # fmt: skip
        return self.issuer.log_in(urlencode(form).encode())


def test_a_code_gives_a_token_for_the_resource() -> None:
    world = World()
    claims = jwt.decode(world.redeem(world.code())["access_token"], options={"verify_signature": False})
    told = {name: claims[name] for name in ("sub", "aud", "client_id", "scope")}
    assert told == {"sub": "alice", "aud": "https://door.example", "client_id": "ide", "scope": "docs"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": "other"}, "unauthorized_client"),
        ({"redirect_uri": "https://app.example/callback"}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1.evil.example/"}, "invalid_request"),
        ({"response_type": "token"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
    ],
)
def test_a_request_of_another_form_gets_no_code(changes: dict[str, str], code: str) -> None:
    world = World()
    with pytest.raises(LoginError) as refused:
        world.code(**changes)
    assert refused.value.code == code
    assert world.code()


@pytest.mark.parametrize(("user", "password"), [("bob", ""), ("bob", "open"), ("carol", "")])
def test_who_does_not_log_in_gets_no_code(user: str, password: str) -> None:
    world = World()
    with pytest.raises(LoginError) as refused:
        world.code(user, password)
    assert refused.value.code == "invalid_grant"
    assert world.code("bob", "sesame")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"client_id": "other"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:3001/callback"}, "invalid_grant"),
        ({"code": "else"}, "invalid_grant"),
        ({"resource": "https://other.example"}, "invalid_target"),
    ],
)
def test_a_code_of_another_is_no_good(changes: dict[str, str], code: str) -> None:
    world = World()
    with pytest.raises(LoginError) as refused:
        world.redeem(**{"code": world.code(), **changes})
    assert refused.value.code == code
    assert world.redeem(world.code())


def test_a_code_is_good_once_and_for_a_minute() -> None:
    world = World()
    code = world.code()
    assert world.redeem(code)
    late = world.code()
    world.now += CODE_LIFE_S
    for used in (code, late):
        with pytest.raises(LoginError):
            world.redeem(used)
    for _ in range(MAX_CODES):
        world.code()
    with pytest.raises(LoginError):
        world.code()
