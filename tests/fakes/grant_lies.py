"""Faults of a server that issues JWT grants, as `lies.py`: a name, the answer, and the reason of our refusal."""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Reason
from tests.fakes.chained_sts import ChainedSts, First, granted, in_place
from tests.fakes.lies import reply
from tests.fakes.lying_sts import SECRET, Form, Reply
from tests.fakes.tokens import ABSENT, TokenMint, encode


def answer(status: int = 200, body: bytes = b"{}", content_type: str | None = "application/json") -> First:
    return reply(status, body, content_type)


def refusal(status: int, error: str = "invalid_request") -> First:
    return answer(status, encode({"error": error, "error_description": SECRET}))


def _unsigned(sts: ChainedSts, form: Form) -> str:
    header = sts.granting.header(typ=sts.typ, alg="none")
    return sts.granting.mint(sts.grant_claims(form), header).rpartition(".")[0] + "."


def _symmetric(sts: ChainedSts, form: Form) -> str:
    return sts.granting.mint(sts.grant_claims(form), sts.granting.header(typ=sts.typ, alg="HS256"))


def _twice(sts: ChainedSts, form: Form) -> str:
    document = encode(sts.grant_claims(form))[:-1] + b',"aud":"https://evil.example"}'
    return sts.granting.mint_documents(encode(sts.granting.header(typ=sts.typ)), document)


def _access_token(sts: ChainedSts, form: Form) -> str:
    return TokenMint(sts.granting.issuer).mint(sts.grant_claims(form))


def _double_member(sts: ChainedSts, form: Form) -> Reply:
    return Reply(body=granted()(sts, form).body[:-1] + b',"access_token":"another"}')


# Whatever kind of grant it is.
GRANT_LIES: Final[dict[str, tuple[First, Reason]]] = {
    "for another server": (granted({"aud": "https://as.evil.example"}), Reason.STS_AUDIENCE_MISMATCH),
    "for two servers": (
        granted({"aud": ["https://sts.acme.example", "https://as.evil.example"]}),
        Reason.STS_AUDIENCE_MISMATCH,
    ),
    "for another spelling": (granted({"aud": "https://sts.acme.example/"}), Reason.STS_AUDIENCE_MISMATCH),
    "for nobody": (granted({"aud": ABSENT}), Reason.STS_AUDIENCE_MISMATCH),
    "aud is a number": (granted({"aud": 7}), Reason.STS_BAD_RESPONSE),
    "by another issuer": (granted({"iss": "https://evil.example"}), Reason.STS_ISSUER),
    "by no issuer": (granted({"iss": ABSENT}), Reason.STS_BAD_RESPONSE),
    "widened scope": (granted({"scope": "crm.read crm.write"}), Reason.STS_SCOPE_WIDENED),
    "scope as a list": (granted({"scope": ["crm.read"]}), Reason.STS_BAD_RESPONSE),
    "scope in the answer alone": (granted(members={"scope": "crm.read crm.write"}), Reason.STS_SCOPE_WIDENED),
    "an access token": (in_place(_access_token), Reason.STS_TOKEN_TYPE),
    "a transaction token": (granted(header={"typ": "txntoken+jwt"}), Reason.STS_TOKEN_TYPE),
    "the subject token": (in_place(lambda _sts, form: form["subject_token"]), Reason.STS_TOKEN_TYPE),
    "unsigned": (in_place(_unsigned), Reason.STS_SIGNATURE),
    "signed with a secret": (in_place(_symmetric), Reason.STS_SIGNATURE),
    "a key of its own": (granted(header={"jwk": {"kty": "oct"}}), Reason.STS_BAD_RESPONSE),
    "opaque": (in_place(lambda _sts, _form: "SlAV32hkKG"), Reason.STS_BAD_RESPONSE),
    "encrypted": (in_place(lambda _sts, _form: "eyJhbGciOiJkaXIifQ..a.b.c"), Reason.STS_BAD_RESPONSE),
    "huge grant": (in_place(lambda _sts, _form: "a" * 20_000), Reason.STS_BAD_RESPONSE),
    "duplicate claims": (in_place(_twice), Reason.STS_BAD_RESPONSE),
    "a bearer token": (granted(members={"token_type": "Bearer"}), Reason.STS_TOKEN_TYPE),
    "no token type": (granted(members={"token_type": ABSENT}), Reason.STS_BAD_RESPONSE),
    "issued an access token": (
        granted(members={"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}),
        Reason.STS_TOKEN_TYPE,
    ),
    "no issued token type": (granted(members={"issued_token_type": ABSENT}), Reason.STS_BAD_RESPONSE),
    "refresh token": (granted(members={"refresh_token": SECRET}), Reason.STS_BAD_RESPONSE),
    "grant and error": (granted(members={"error": "invalid_request"}), Reason.STS_BAD_RESPONSE),
    "no grant": (granted(members={"access_token": ABSENT}), Reason.STS_BAD_RESPONSE),
    "lifetime is true": (granted(members={"expires_in": True}), Reason.STS_BAD_RESPONSE),
    "duplicate members": (_double_member, Reason.STS_BAD_RESPONSE),
    "huge body": (answer(body=b'{"access_token":"' + b"a" * 70_000 + b'"}'), Reason.STS_TOO_LARGE),
    "garbage": (answer(body=b"\x00\xff" + SECRET.encode()), Reason.STS_BAD_RESPONSE),
    "no body": (answer(body=b""), Reason.STS_BAD_RESPONSE),
    "HTML": (answer(body=b"<html>" + SECRET.encode(), content_type="text/html"), Reason.STS_BAD_RESPONSE),
    "201": (answer(201), Reason.STS_BAD_RESPONSE),
    "302": (refusal(302), Reason.STS_REDIRECT),
    "307": (refusal(307), Reason.STS_REDIRECT),
    "400": (refusal(400, "invalid_grant"), Reason.EXCHANGE_DENIED),
    "401": (refusal(401, "invalid_client"), Reason.STS_ERROR),
    "404": (refusal(404), Reason.STS_BAD_RESPONSE),
    "429": (refusal(429), Reason.STS_UNAVAILABLE),
    "503": (refusal(503), Reason.STS_UNAVAILABLE),
}
