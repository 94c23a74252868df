from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.exchange.adapters.jwt_grant import check_scope, parse_grant, present
from tests.fakes.tokens import NOW, TokenMint

HOME = TokenMint("https://as.home.example", key=4)
AUDIENCE = "https://sts.acme.example"
TYP = frozenset({None, "jwt"})


def grant(header: dict[str, object] | None = None, **changes: object) -> str:
    claims = {"iss": HOME.issuer, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 60, **changes}
    return HOME.mint(claims, HOME.header(**{"typ": "JWT", **(header or {})}))


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE]])
def test_a_grant_for_one_server_is_presented_there_as_it_is(aud: object) -> None:
    raw = grant(aud=aud)
    step = present(parse_grant(raw, typ=TYP, issuer=HOME.issuer, audience=AUDIENCE), ("scope", "crm.read"))
    assert step.endpoint == "token"
    assert step.form == (
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", raw),
        ("scope", "crm.read"),
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (grant(aud="https://other.example"), Reason.STS_AUDIENCE_MISMATCH),
        (grant(aud=[AUDIENCE, "https://other.example"]), Reason.STS_AUDIENCE_MISMATCH),
        (grant(iss="https://other.example"), Reason.STS_ISSUER),
        (grant({"typ": "at+jwt"}), Reason.STS_TOKEN_TYPE),
        (grant({"alg": "HS256"}), Reason.STS_SIGNATURE),
        (grant({"alg": "none"}).rpartition(".")[0] + ".", Reason.STS_SIGNATURE),
        (grant(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}), Reason.STS_BAD_RESPONSE),
        (grant(cnf={}), Reason.STS_BAD_RESPONSE),
        (grant(cnf=None), Reason.STS_BAD_RESPONSE),
        (grant({"jku": "https://evil.example"}), Reason.STS_BAD_RESPONSE),
        ("SlAV32hkKG", Reason.STS_BAD_RESPONSE),
    ],
)
def test_any_other_grant_goes_nowhere(raw: str, reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        parse_grant(raw, typ=TYP, issuer=HOME.issuer, audience=AUDIENCE)
    assert caught.value.reason is reason


def test_a_bound_grant_is_refused_by_its_name_and_with_the_fix() -> None:
    with pytest.raises(Denied, match=r"bound to a key \(cnf\).*issue grants without cnf to this client"):
        parse_grant(grant(cnf={"jkt": "x"}), typ=TYP, issuer=HOME.issuer, audience=AUDIENCE)


def test_a_grant_may_be_narrower_and_never_wider() -> None:
    asked = frozenset({"crm.read", "crm.write"})
    for claims in ({}, {"scope": "crm.read"}, {"scope": "crm.write crm.read"}):
        check_scope(claims, asked)
    for scope, reason in (("crm.delete", Reason.STS_SCOPE_WIDENED), (["crm.read"], Reason.STS_BAD_RESPONSE)):
        with pytest.raises(Denied) as caught:
            check_scope({"scope": scope}, asked)
        assert caught.value.reason is reason
