"""Faults of a token service, as tables: a name, the faulty behaviour, and the reason of our refusal.

``CONTENT_LIES`` are valid HTTP and need no network; ``WIRE_LIES`` are sent on a real connection. Many of them were seen
in real token services: ignoring the actor, dropping the chain, widening the scope, a token that outlives its subject,
an opaque token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from delegation_core.errors import Reason
from tests.fakes.lying_sts import SECRET, Behaviour, Form, LyingSts, Reply, Wire, honest
from tests.fakes.tokens import ABSENT, NOW, PLANNER, WRITER, TokenMint, encode

EVIL: Final = "spiffe://acme.example/agent/evil"


def claims(**changes: object) -> Behaviour:
    """A token with other claims."""
    return lambda sts, form: Reply(body=encode(sts.members(form, sts.mint.mint(sts.claims(form, **changes)))))


def header(**changes: object) -> Behaviour:
    """A token with another header."""

    def lie(sts: LyingSts, form: Form) -> Reply:
        token = sts.mint.mint(sts.claims(form), sts.mint.header(**changes))
        return Reply(body=encode(sts.members(form, token)))

    return lie


def members(**changes: object) -> Behaviour:
    """A lawful token in an answer with other members."""
    return lambda sts, form: Reply(body=encode(sts.members(form, sts.mint.mint(sts.claims(form)), **changes)))


def token(make: Callable[[LyingSts, Form], str]) -> Behaviour:
    """Another value in place of the token."""
    return lambda sts, form: Reply(body=encode(sts.members(form, make(sts, form))))


def reply(status: int = 200, body: bytes = b"{}", content_type: str | None = "application/json") -> Behaviour:
    headers = () if content_type is None else (("Content-Type", content_type),)
    return lambda _sts, _form: Reply(status, headers, body)


def refusal(status: int, error: str = "invalid_request") -> Behaviour:
    return reply(status, encode({"error": error, "error_description": SECRET, "error_uri": SECRET}))


def relabelled(content_type: str | None) -> Behaviour:
    headers = () if content_type is None else (("Content-Type", content_type),)
    return lambda sts, form: replace(honest(sts, form), headers=headers)


def _forged(sts: LyingSts, form: Form) -> str:
    return TokenMint(sts.mint.issuer, key=7).mint(sts.claims(form))


def _another_issuer(sts: LyingSts, form: Form) -> str:
    other = TokenMint("https://evil.example", kid="its-own", key=8)
    return other.mint(sts.claims(form, iss=other.issuer))


def _unsigned(sts: LyingSts, form: Form) -> str:
    return sts.mint.mint(sts.claims(form), sts.mint.header(alg="none")).rpartition(".")[0] + "."


def _twice_the_subject(sts: LyingSts, form: Form) -> str:
    document = encode(sts.claims(form))[:-1] + b',"sub":"somebody"}'
    return sts.mint.mint_documents(encode(sts.mint.header()), document)


def _twice_the_token(sts: LyingSts, form: Form) -> Reply:
    return Reply(body=honest(sts, form).body[:-1] + b',"access_token":"another"}')


PRIOR: Final = {"sub": str(PLANNER)}

CONTENT_LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "no act": (claims(act=ABSENT), Reason.STS_NO_ACT),
    "act is null": (claims(act=None), Reason.STS_NO_ACT),
    "act is a string": (claims(act=str(WRITER)), Reason.STS_NO_ACT),
    "act without sub": (claims(act={"iss": "x", "act": PRIOR}), Reason.STS_NO_ACT),
    "other actor": (claims(act={"sub": EVIL, "act": PRIOR}), Reason.STS_ACTOR_MISMATCH),
    "actor by another spelling": (
        claims(act={"sub": WRITER.upper(), "act": PRIOR}),
        Reason.STS_ACTOR_MISMATCH,
    ),
    "act not moved on": (claims(act=PRIOR), Reason.STS_ACTOR_MISMATCH),
    "actor of a foreign trust domain": (
        claims(act={"sub": "spiffe://other.example/agent/writer", "act": PRIOR}),
        Reason.STS_ACTOR_MISMATCH,
    ),
    "chain dropped": (claims(act={"sub": str(WRITER)}), Reason.STS_CHAIN_BROKEN),
    "chain spliced": (claims(act={"sub": str(WRITER), "act": {"sub": EVIL}}), Reason.STS_CHAIN_BROKEN),
    "chain longer": (
        claims(act={"sub": str(WRITER), "act": {"sub": str(PLANNER), "act": {"sub": EVIL}}}),
        Reason.STS_CHAIN_BROKEN,
    ),
    "ourselves twice": (
        claims(act={"sub": str(WRITER), "act": {"sub": str(WRITER), "act": PRIOR}}),
        Reason.STS_CHAIN_BROKEN,
    ),
    "prior actor embellished": (
        claims(act={"sub": str(WRITER), "act": {**PRIOR, "iss": "x"}}),
        Reason.STS_CHAIN_BROKEN,
    ),
    "other transaction": (claims(txn="another"), Reason.STS_CHAIN_BROKEN),
    "no transaction": (claims(txn=ABSENT), Reason.STS_CHAIN_BROKEN),
    "other parent": (claims(parent_jti="another"), Reason.STS_CHAIN_BROKEN),
    "other sub": (claims(sub="user-1"), Reason.STS_SUBJECT_MISMATCH),
    "sub in another case": (claims(sub="USER-4711"), Reason.STS_SUBJECT_MISMATCH),
    "sub is the actor": (claims(sub=str(WRITER)), Reason.STS_SUBJECT_MISMATCH),
    "no sub": (claims(sub=ABSENT), Reason.STS_BAD_RESPONSE),
    "other original subject": (
        claims(sub_id={"format": "iss_sub", "iss": "https://idp.example", "sub": "x"}),
        Reason.STS_SUBJECT_MISMATCH,
    ),
    "no original subject": (claims(sub_id=ABSENT), Reason.STS_SUBJECT_MISMATCH),
    "other aud": (claims(aud="spiffe://acme.example/tool/mail"), Reason.STS_AUDIENCE_MISMATCH),
    "several aud": (
        claims(aud=["spiffe://acme.example/tool/crm", "spiffe://acme.example/tool/mail"]),
        Reason.STS_AUDIENCE_MISMATCH,
    ),
    "aud is us": (claims(aud=str(WRITER)), Reason.STS_AUDIENCE_MISMATCH),
    "no aud": (claims(aud=ABSENT), Reason.STS_AUDIENCE_MISMATCH),
    "widened scope": (claims(scope="crm.read crm.write"), Reason.STS_SCOPE_WIDENED),
    "other scope": (claims(scope="docs.read"), Reason.STS_SCOPE_WIDENED),
    "scope as a list": (claims(scope=["crm.read"]), Reason.STS_BAD_RESPONSE),
    "widened scope in the answer alone": (members(scope="crm.read crm.write"), Reason.STS_SCOPE_WIDENED),
    "scope that is not a scope": (members(scope=["crm.read"]), Reason.STS_BAD_RESPONSE),
    "longer exp": (claims(exp=NOW + 291), Reason.STS_LIFETIME),
    "already expired": (claims(exp=NOW), Reason.STS_LIFETIME),
    "not yet valid": (claims(nbf=NOW + 3600), Reason.STS_LIFETIME),
    "issued in the future": (claims(iat=NOW + 3600), Reason.STS_LIFETIME),
    "exp is a string": (claims(exp=str(NOW + 60)), Reason.STS_BAD_RESPONSE),
    "exp is true": (claims(exp=True), Reason.STS_BAD_RESPONSE),
    "no exp": (claims(exp=ABSENT), Reason.STS_BAD_RESPONSE),
    "other issuer": (claims(iss="https://evil.example"), Reason.STS_ISSUER),
    "issuer with a slash more": (claims(iss="https://sts.acme.example/"), Reason.STS_ISSUER),
    "other issuer with a key of its own": (token(_another_issuer), Reason.STS_ISSUER),
    "no issuer": (claims(iss=ABSENT), Reason.STS_BAD_RESPONSE),
    "forged": (token(_forged), Reason.STS_SIGNATURE),
    "unsigned": (token(_unsigned), Reason.STS_SIGNATURE),
    "unknown key": (header(kid="nobody's"), Reason.STS_SIGNATURE),
    "another type of token": (header(typ="txntoken+jwt"), Reason.STS_TOKEN_TYPE),
    "no type of token": (header(typ=ABSENT), Reason.STS_TOKEN_TYPE),
    "a critical extension": (header(crit=["exp"]), Reason.STS_BAD_RESPONSE),
    "the subject token": (token(lambda _sts, form: form["subject_token"]), Reason.STS_AUDIENCE_MISMATCH),
    "the subject token's jti": (claims(jti="token-1"), Reason.STS_BAD_RESPONSE),
    "no jti": (claims(jti=ABSENT), Reason.STS_BAD_RESPONSE),
    "opaque token": (token(lambda _sts, _form: "SlAV32hkKG"), Reason.STS_BAD_RESPONSE),
    "encrypted token": (token(lambda _sts, _form: "eyJhbGciOiJkaXIifQ..a.b.c"), Reason.STS_BAD_RESPONSE),
    "huge token": (token(lambda _sts, _form: "a" * 20_000), Reason.STS_BAD_RESPONSE),
    "duplicate claims": (token(_twice_the_subject), Reason.STS_BAD_RESPONSE),
    "N_A token type": (members(token_type="N_A"), Reason.STS_TOKEN_TYPE),
    "DPoP token type": (members(token_type="DPoP"), Reason.STS_TOKEN_TYPE),
    "no token type": (members(token_type=ABSENT), Reason.STS_BAD_RESPONSE),
    "issued an id token": (
        members(issued_token_type="urn:ietf:params:oauth:token-type:id_token"),
        Reason.STS_TOKEN_TYPE,
    ),
    "issued a refresh token": (
        members(issued_token_type="urn:ietf:params:oauth:token-type:refresh_token"),
        Reason.STS_TOKEN_TYPE,
    ),
    "no issued token type": (members(issued_token_type=ABSENT), Reason.STS_BAD_RESPONSE),
    "refresh token": (members(refresh_token=SECRET), Reason.STS_BAD_RESPONSE),
    "token and error": (members(error="invalid_request"), Reason.STS_BAD_RESPONSE),
    "no token": (members(access_token=ABSENT), Reason.STS_BAD_RESPONSE),
    "token is a number": (members(access_token=7), Reason.STS_BAD_RESPONSE),
    "token is null": (members(access_token=None), Reason.STS_BAD_RESPONSE),
    "lifetime is a string": (members(expires_in="290"), Reason.STS_BAD_RESPONSE),
    "lifetime is true": (members(expires_in=True), Reason.STS_BAD_RESPONSE),
    "lifetime is negative": (members(expires_in=-1), Reason.STS_BAD_RESPONSE),
    "duplicate members": (_twice_the_token, Reason.STS_BAD_RESPONSE),
    "garbage": (reply(body=b"\x00\xff" + SECRET.encode()), Reason.STS_BAD_RESPONSE),
    "no body": (reply(body=b""), Reason.STS_BAD_RESPONSE),
    "a list": (reply(body=b"[]"), Reason.STS_BAD_RESPONSE),
    "a bottomless document": (reply(body=b'{"a":' * 10_000), Reason.STS_BAD_RESPONSE),
    "HTML": (reply(body=b"<html>" + SECRET.encode(), content_type="text/html"), Reason.STS_BAD_RESPONSE),
    "wrong media type": (relabelled("text/plain"), Reason.STS_BAD_RESPONSE),
    "no media type": (relabelled(None), Reason.STS_BAD_RESPONSE),
    "201": (reply(201), Reason.STS_BAD_RESPONSE),
    "204": (reply(204, b""), Reason.STS_BAD_RESPONSE),
    "301": (refusal(301), Reason.STS_REDIRECT),
    "307": (refusal(307), Reason.STS_REDIRECT),
    "400": (refusal(400), Reason.EXCHANGE_DENIED),
    "400 of its own kind": (refusal(400, SECRET), Reason.EXCHANGE_DENIED),
    "400 in HTML": (reply(400, SECRET.encode(), "text/html"), Reason.EXCHANGE_DENIED),
    "401": (refusal(401, "invalid_client"), Reason.STS_ERROR),
    "401 without a body": (reply(401, b""), Reason.STS_ERROR),
    "403": (refusal(403, "access_denied"), Reason.STS_ERROR),
    "404": (refusal(404), Reason.STS_BAD_RESPONSE),
    "429": (refusal(429), Reason.STS_UNAVAILABLE),
    "500": (refusal(500, "server_error"), Reason.STS_UNAVAILABLE),
    "503": (refusal(503), Reason.STS_UNAVAILABLE),
}


def raw(*pieces: bytes) -> Wire:
    """Send bytes as they are, then close."""

    async def tell(writer: asyncio.StreamWriter, _honest: bytes) -> None:
        writer.writelines(pieces)

    return tell


async def close(_writer: asyncio.StreamWriter, _answer: bytes) -> None:
    """Close without an answer."""


async def hang(writer: asyncio.StreamWriter, _answer: bytes) -> None:
    await writer.wait_closed()  # until the other end gives up


async def drip(writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Send each byte within the patience of a client that only times the gaps."""
    for byte in answer:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter, _answer: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(160):
        writer.write(b" " * 65536)
        await writer.drain()


async def flood_in_chunks(writer: asyncio.StreamWriter, _answer: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(160):
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await writer.drain()


async def cut(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer[:-10])


async def labelled_gzip(writer: asyncio.StreamWriter, answer: bytes) -> None:
    """A lawful answer labelled as compressed: a library that trusts the label reads something else."""
    writer.write(answer.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1))


async def double_type(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer.replace(b"\r\n\r\n", b"\r\nContent-Type: text/html\r\n\r\n", 1))


WIRE_LIES: Final[dict[str, tuple[Wire, Reason]]] = {
    "redirect": (
        raw(b"HTTP/1.1 307 Over there\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        Reason.STS_REDIRECT,
    ),
    "10 MB body": (flood, Reason.STS_TOO_LARGE),
    "10 MB in chunks": (flood_in_chunks, Reason.STS_TOO_LARGE),
    "endless head": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), Reason.STS_BAD_RESPONSE),
    "a byte at a time": (drip, Reason.STS_TIMEOUT),
    "hangs": (hang, Reason.STS_TIMEOUT),
    "closes": (close, Reason.STS_UNAVAILABLE),
    "ends early": (cut, Reason.STS_BAD_RESPONSE),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), Reason.STS_BAD_RESPONSE),
    "two lengths": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"),
        Reason.STS_BAD_RESPONSE,
    ),
    "upgrade": (
        raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Reason.STS_BAD_RESPONSE,
    ),
    "labelled as compressed": (labelled_gzip, Reason.STS_BAD_RESPONSE),
    "two media types": (double_type, Reason.STS_BAD_RESPONSE),
    "compressed": (
        raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
            b"\x1f\x8b\x08\x00"
        ),
        Reason.STS_BAD_RESPONSE,
    ),
}
