"""Tokens and their surroundings: credentials in headers, JWS, claims, act chains, scopes, SPIFFE IDs, JSON."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final

import jwt
import orjson

from delegation_core.act import MAX_ACT_DEPTH, ActChain, parse_act
from delegation_core.bearer import Bearer, bearer_of, parse_bearer, parse_jwt_svid, parse_txn_token
from delegation_core.claims import audience_claim, is_name, name_claim, time_claim
from delegation_core.errors import Denied, Reason
from delegation_core.jws import ALGORITHMS, HEADER_MEMBERS, MAX_TOKEN_BYTES
from delegation_core.scope import ScopeError, format_scope, parse_scope, parse_scope_claim
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from delegation_core.strict_json import MAX_DEPTH, StrictJsonError, nesting_of, parse_object
from sidecar.proxy.journeys.credentials import credential_of
from tests.fuzz.properties import quiet
from tests.wire.written import request_with

_UNREAD: Final = frozenset(
    {Reason.TOKEN_TOO_LARGE, Reason.MALFORMED_TOKEN, Reason.DUPLICATE_CLAIM, Reason.ALG_NOT_ALLOWED, Reason.TOKEN_TYPE}
)
_NO_BEARER: Final = frozenset(
    {Reason.NO_TOKEN, Reason.HEADER_MALFORMED, Reason.TOKEN_TOO_LARGE, Reason.MALFORMED_TOKEN}
)


def _denied(read: Callable[[], Any], reasons: frozenset[Reason]) -> Any:
    """Return the result of ``read``, or None if it refuses with an allowed reason."""
    try:
        return read()
    except Denied as error:
        assert error.reason in reasons, error.reason
        quiet(error)
        return None


def authorization(data: bytes) -> None:
    """The value of an Authorization field (and after a line break of a Delegation-Handle): one credential or none.

    The two parsers, of peers' tokens and of agents' handles, never find different ones in it.
    """
    value, _, handle = data.partition(b"\n")
    request = request_with([(b"authorization", value), *([(b"delegation-handle", handle)] if handle else [])])
    token = _denied(lambda: bearer_of(request.all(b"authorization")), _NO_BEARER)
    shown = _denied(lambda: credential_of(request), frozenset({Reason.HEADER_MALFORMED, Reason.NO_REQUEST_CONTEXT}))
    if token is not None:
        assert 0 < len(token) <= MAX_TOKEN_BYTES
        assert token.encode() in value
        assert not set(token) & set(" ,")
    if shown is not None and not handle:
        read = shown.handle or shown.token
        assert token in {read, None}
        assert read is not None
        assert value.lower().startswith(b"bearer ")
    for doubled in ([value, value], [b"Bearer a.b.c", value]):
        assert _denied(lambda values=doubled: bearer_of(values), _NO_BEARER) is None  # type: ignore[misc]


def compact_token(data: bytes) -> None:
    """A compact token as text: one spelling, one reading."""
    _token(data.decode("latin-1"))


def token_documents(data: bytes) -> None:
    """Header and claims as two JSON documents with a NUL between, made into a token: this gets a fuzzer past base64."""
    header, _, claims = data.partition(b"\0")
    _token(".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, claims, b"signature")))


def _token(raw: str) -> None:
    bearer = _denied(lambda: parse_bearer(raw), _UNREAD)
    svid = _denied(lambda: parse_jwt_svid(raw), _UNREAD)
    txn_token = _denied(lambda: parse_txn_token(raw), _UNREAD)
    for read in (bearer, svid, txn_token):
        if read is not None:
            _one_reading(raw, read)
    if bearer is not None:
        _claims(bearer.claims)


def _one_reading(raw: str, read: Bearer) -> None:
    header, payload, signature = raw.split(".")
    assert read.raw == raw
    assert read.signing_input == f"{header}.{payload}".encode()
    assert urlsafe_b64encode(read.signature).rstrip(b"=").decode() == signature
    assert read.alg in ALGORITHMS
    assert HEADER_MEMBERS.issuperset(read.header)
    other = jwt.decode_complete(raw, options={"verify_signature": False})  # another parser, with other JSON rules
    assert other["header"] == read.header
    assert other["payload"] == read.claims
    assert orjson.loads(urlsafe_b64decode(payload + "==")) == read.claims


def _claims(claims: Any) -> None:
    reasons = frozenset({Reason.MALFORMED_TOKEN, Reason.WRONG_AUDIENCE})
    for claim in ("sub", "jti", "client_id"):
        name = _denied(lambda claim=claim: name_claim(claims, claim), reasons)  # type: ignore[misc]
        assert name is None or is_name(name)
    for claim in ("exp", "nbf", "iat"):
        at = _denied(lambda claim=claim: time_claim(claims, claim), reasons)  # type: ignore[misc]
        assert at is None or (0 <= at <= 2**53 and int(at) <= at)
    audience = _denied(lambda: audience_claim(claims), reasons)
    assert audience is None or claims["aud"] in (audience, [audience])
    _chain(claims)


def act_chain(data: bytes) -> None:
    """Claims with an actor chain: every actor is named by plain text, and the chain reads the same when passed on."""
    try:
        claims = parse_object(data, max_depth=512)
    except StrictJsonError as error:
        quiet(error)
        return
    _chain(claims)


def _chain(claims: Any) -> None:
    chain = _denied(lambda: parse_act(claims), frozenset({Reason.ACT_MALFORMED, Reason.ACT_TOO_DEEP}))
    if not isinstance(chain, ActChain):
        return
    assert 1 <= chain.depth <= MAX_ACT_DEPTH
    assert len(chain.prior) == chain.depth - 1
    for actor in chain.actors:
        assert all(name is None or is_name(name) for name in (actor.subject, actor.issuer, actor.client_id))
    assert parse_act(parse_object(json.dumps({"act": chain.raw}).encode(), max_bytes=1 << 20, max_depth=512)) == chain
    level: Any = claims
    for actor in chain.actors:
        level = level["act"]
        assert level["sub"] == actor.subject
    assert "act" not in level
    deeper = {"act": {"sub": "spiffe://acme.example/agent/next", "act": chain.raw}}
    longer = _denied(lambda: parse_act(deeper), frozenset({Reason.ACT_TOO_DEEP}))
    assert (longer is None) == (chain.depth == MAX_ACT_DEPTH)
    assert longer is None or longer.prior == chain.actors


def json_object(data: bytes) -> None:
    """Check that other parsers accept our JSON with the same meaning."""
    try:
        read = parse_object(data)
    except StrictJsonError as error:
        quiet(error)
        return
    assert json.loads(data) == read
    assert orjson.loads(data) == read
    assert nesting_of(read) <= MAX_DEPTH
    assert parse_object(json.dumps(read).encode(), max_bytes=10 * 65536) == read


def scope(data: bytes) -> None:
    """A scope is a set of whole tokens; written and parsed again it is the same set."""
    text = data.decode("latin-1")
    try:
        read = parse_scope(text)
    except ScopeError as error:
        quiet(error)
        return
    assert read == frozenset(text.split())
    assert parse_scope(format_scope(read)) == read
    assert parse_scope_claim(sorted(read), shape="array") == read
    assert parse_scope_claim(text, shape="either") == read
    assert all(re.fullmatch(r"[!#-\[\]-~]+", token) for token in read)


def spiffe_id(data: bytes) -> None:
    """A SPIFFE ID is its own text, of one trust domain and a path, and no other text equals it."""
    text = data.decode("utf-8", "replace")
    try:
        read = SpiffeId(text)
    except SpiffeIdError as error:
        quiet(error)
        return
    assert str(read) == text == f"spiffe://{read.trust_domain}{read.path}"
    assert text.isascii()
    assert len(text) <= 2048
    assert SpiffeId(str(read)) == read
    assert read.trust_domain == read.trust_domain.lower()
    assert not {"", ".", ".."} & set(read.path.split("/")[1:])
    for other in (f"{text}/", text.upper(), f" {text}", f"{text}\n", text.replace("spiffe", "SPIFFE")):
        try:
            assert SpiffeId(other) != read
        except SpiffeIdError:
            continue
