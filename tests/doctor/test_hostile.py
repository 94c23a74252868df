"""A server may answer anything: the doctor survives it, and says nothing that it has not seen."""

from __future__ import annotations

import json
from typing import Any, Final

import jwt
import pytest

from sidecar.doctor.fitting_settings import exchange_settings, issuer_settings, login_settings
from sidecar.doctor.messages import Answer, Place, Request
from sidecar.doctor.report import Veil, show
from tests.doctor.world import World
from tests.fakes.foreign_sts import Knobs

ODD: Final[list[Any]] = [
    None, True, -7, 1e15, "x" * 3000, "\x1b[2J", [], ["a", ["b"]], {"sub": []},
    {"sub": {}, "act": {"sub": ["x"], "act": []}}, {"act": {"sub": "agent-b"}, "sub": "agent-a"},
]  # fmt: skip
CLAIMS: Final = ("sub", "act", "aud", "scope", "exp", "iat", "jti", "iss", "client_id", "may_act", "cnf", "typ", "azp")
HEADERS: Final = ("alg", "kid", "typ")
MEMBERS: Final = (
    "access_token", "issued_token_type", "token_type", "expires_in", "scope", "refresh_token", "error", "active", "act",
)  # fmt: skip


class Hostile(World):
    """Changes a claim, a header member, or a member of each answer; the server itself goes on as before."""

    def __init__(self, *, claim: str = "", header: str = "", member: str = "", value: object, of: str = "") -> None:
        super().__init__(Knobs(delegated_actor=True))
        self.claim, self.header, self.member, self.value = claim, header, member, value
        self.of = of  # the one client whose answers are changed; "": both

    def answer(self, request: Request) -> Answer:
        answer = super().answer(request)
        if self.of not in ("", request.client.client_id):
            return answer
        members = dict(answer.members)
        if self.member:
            members[self.member] = self.value
        token = answer.issued
        if request.place is Place.TOKEN and token is not None and (self.claim or self.header):
            members["access_token"] = self._changed(token)
        return Answer(status=answer.status, members=members, at=answer.at)

    def _changed(self, token: str) -> str:
        claims, header = dict(self.sts.known[token]), jwt.get_unverified_header(token)
        if self.claim:
            claims[self.claim] = self.value
        if self.header:
            header[self.header] = self.value
        parts = [json.dumps(header), json.dumps(claims)]
        changed = ".".join([*map(_part, parts), token.rpartition(".")[2]])
        self.sts.known[changed] = self.sts.known[token]
        return changed


def _part(text: str) -> str:
    return jwt.utils.base64url_encode(text.encode()).decode()


def survived(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = world.examine()
    for settings in (issuer_settings, exchange_settings, login_settings):
        settings(found)  # where the server fits, these are printed
    show(found, world.log, Veil(), as_json=False, evidence=True)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("claim", CLAIMS)
def test_any_claim_is_survived(claim: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    for of in ("", "agent-b"):
        survived(Hostile(claim=claim, value=value, of=of), capsys)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("header", HEADERS)
def test_any_header_is_survived(header: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    survived(Hostile(header=header, value=value), capsys)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("member", MEMBERS)
def test_any_member_of_an_answer_is_survived(member: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    survived(Hostile(member=member, value=value), capsys)


@pytest.mark.parametrize("status", [0, 100, 200, 204, 302, 400, 401, 429, 500, 503, 599])
def test_any_status_for_everything_is_survived(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    class Same(World):
        def answer(self, _request: Request) -> Answer:
            return Answer(status=status, empty=True, at=self.now)

    world = Same()
    survived(world, capsys)
    assert {cell.value.value for cell in world.cells().values()} <= {"not tested"}
