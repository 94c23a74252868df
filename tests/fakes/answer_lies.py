"""Answers that change an honest one, for any adapter and step: what HTTP, JSON and members can get wrong, or vary.

Each is made of the honest answer to the same request, so that one fact alone is wrong. ``EVERYWHERE`` are faults at
every step, ``RIGHT`` are variations that must be accepted, and ``SILENT`` never end. `token_lies` has the tokens.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from delegation_core.errors import Reason
from tests.fakes.lying_sts import SECRET, Form, LyingSts, Reply, encode_reply
from tests.fakes.tokens import ABSENT, changed, encode

BAD: Final = frozenset({Reason.STS_BAD_RESPONSE})
AWAY: Final = frozenset({Reason.STS_UNAVAILABLE})
TYPE: Final = frozenset({Reason.STS_TOKEN_TYPE, Reason.STS_BAD_RESPONSE})
REDIRECT: Final = frozenset({Reason.STS_REDIRECT})
JSON: Final = "Content-Type: application/json"


@dataclass(frozen=True)
class Said:
    """An honest answer, what it answers, and another host that would like to be asked."""

    reply: Reply
    sts: LyingSts
    form: Form
    elsewhere: str

    @property
    def document(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.reply.body)
        return members

    def raw(self, body: bytes | None = None, *fields: str, status: int = 200, kind: str = JSON) -> bytes:
        """Return a whole answer: the honest body or another, with more fields."""
        content = self.reply.body if body is None else body
        lines = [f"HTTP/1.1 {status} X", *([kind] if kind else []), *fields, f"Content-Length: {len(content)}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + content

    def members(self, **changes: object) -> bytes:
        return self.raw(encode(changed(self.document, changes)))


Lie = Callable[[Said], bytes]
Row = tuple[Lie, frozenset[Reason]]


def status(code: int, *fields: str) -> Lie:
    return lambda said: said.raw(None, *fields, status=code)


def refusal(code: int, error: object = "invalid_request", *fields: str) -> Lie:
    body = encode({"error": error, "error_description": SECRET, "error_uri": f"https://x.example/{SECRET}"})
    return lambda said: said.raw(body, *fields, status=code)


def moved(code: int) -> Lie:
    return lambda said: said.raw(None, f"Location: {said.elsewhere}", status=code)


def field(line: str) -> Lie:
    return lambda said: said.raw(None, line.replace("ELSEWHERE", said.elsewhere))


def kind(line: str) -> Lie:
    return lambda said: said.raw(kind=line)


def body(make: Callable[[bytes], bytes], *fields: str) -> Lie:
    return lambda said: said.raw(make(said.reply.body), *fields)


def member(**changes: object) -> Lie:
    return lambda said: said.members(**changes)


def verbatim(name: str, value: bytes) -> Lie:
    """A member whose value no JSON writer produces."""

    def lie(said: Said) -> bytes:
        rest = encode({key: item for key, item in said.document.items() if key != name})
        return said.raw(rest[:-1] + b',"' + name.encode() + b'":' + value + b"}")

    return lie


def beside(text: bytes) -> Lie:
    """More members after the honest ones."""
    return body(lambda honest: honest[:-1] + b"," + text + b"}")


def wire(make: Callable[[bytes], bytes], *fields: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Lie:
    """The whole answer after its first line and media type, byte for byte."""

    def lie(said: Said) -> bytes:
        lines = b"".join(line + b"\r\n" for line in (JSON.encode(), *fields))
        return head + lines + make(said.reply.body)

    return lie


def chunked(content: bytes, size: int = 7) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


def sized(content: bytes, size: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % size + content


CHUNKED: Final = b"Transfer-Encoding: chunked"

STATUSES: Final[dict[str, Row]] = {
    **{f"{code} with a token": (status(code), BAD) for code in (201, 202, 203, 206, 207, 226, 402, 404, 405, 406, 408)},
    **{f"{code} with a token": (status(code), BAD) for code in (409, 410, 412, 413, 415, 418, 422, 423, 428, 431, 451)},
    **{f"{code} with a token": (status(code), AWAY) for code in (429, 500, 501, 502, 503, 504, 505, 507, 511, 599)},
    "204 with a token": (status(204), BAD),
    "205 with a token": (status(205), BAD),
    "400 with a token": (status(400), frozenset({Reason.EXCHANGE_DENIED})),
    "401 with a token": (
        status(401, 'WWW-Authenticate: Basic realm="x"'),
        frozenset({Reason.STS_ERROR}),
    ),
    "403 with a token": (status(403), frozenset({Reason.STS_ERROR})),
    "407 with a token": (status(407, 'Proxy-Authenticate: Basic realm="x"'), BAD),
    "400 of no known kind": (refusal(400, SECRET), frozenset({Reason.EXCHANGE_DENIED})),
    "400 whose error is a list": (refusal(400, [SECRET]), frozenset({Reason.EXCHANGE_DENIED})),
    "429 with a date": (refusal(429, "slow_down", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"), AWAY),
    "503 for ever": (refusal(503, "server_error", "Retry-After: 99999999999"), AWAY),
    **{f"{code} to another host": (moved(code), REDIRECT) for code in (300, 301, 302, 303, 305, 306, 307, 308, 399)},
    "304": (lambda said: said.raw(b"", status=304), REDIRECT),
    "307 to nowhere": (status(307), REDIRECT),
    "308 to a path": (status(308, "Location: /token2"), REDIRECT),
    "101": (
        lambda _said: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        BAD,
    ),
    "status of four digits": (lambda said: said.raw().replace(b" 200 ", b" 2000 ", 1), BAD),
    "status in words": (lambda said: said.raw().replace(b" 200 ", b" OK ", 1), BAD),
}
MEDIA: Final[dict[str, Row]] = {
    name: (kind(line), BAD)
    for name, line in {
        "no media type": "",
        "plain text": "Content-Type: text/plain",
        "HTML": "Content-Type: text/html",
        "a form": "Content-Type: application/x-www-form-urlencoded",
        "a JWT": "Content-Type: application/jwt",
        "JSON of another kind": "Content-Type: application/problem+json",
        "a list of types": "Content-Type: application/json, text/html",
        "nearly JSON": "Content-Type: application/jsonx",
        "two media types": "Content-Type: application/json\r\nContent-Type: text/html",
        "the same media type twice": "Content-Type: application/json\r\nContent-Type: application/json",
    }.items()
}
ENCODINGS: Final[dict[str, Row]] = {
    "compressed": (body(gzip.compress, "Content-Encoding: gzip"), BAD),
    "labelled as compressed": (field("Content-Encoding: gzip"), BAD),
    "labelled as identity": (field("Content-Encoding: identity"), BAD),
    "labelled br, twice": (field("Content-Encoding: br, br"), BAD),
    "compressed without a word": (body(gzip.compress), BAD),
    "UTF-16": (body(lambda honest: honest.decode().encode("utf-16")), BAD),
    "UTF-16, labelled": (
        lambda said: said.raw(said.reply.body.decode().encode("utf-16"), kind=f"{JSON}; charset=utf-16"),
        BAD,
    ),
    "UTF-32": (body(lambda honest: honest.decode().encode("utf-32-le")), BAD),
    "a byte order mark": (body(lambda honest: b"\xef\xbb\xbf" + honest), BAD),
    "no UTF-8": (beside(b'"x":"\xff"'), BAD),
    "UTF-8 of too many bytes": (beside(b'"x":"\xc0\xaf"'), BAD),
    "a lone surrogate": (beside(b'"x":"\\ud800"'), BAD),
    "a surrogate in bytes": (beside(b'"x":"\xed\xa0\x80"'), BAD),
    "a NUL before": (body(lambda honest: b"\x00" + honest), BAD),
    "a NUL in a text": (beside(b'"x":"\x00"'), BAD),
}
SHAPES: Final[dict[str, Row]] = {
    name: (body(make), BAD)
    for name, make in {
        "nothing": lambda _: b"",
        "spaces": lambda _: b"   \n",
        "null": lambda _: b"null",
        "true": lambda _: b"true",
        "a number": lambda _: b"7",
        "a text": lambda honest: encode(honest.decode()),
        "an empty list": lambda _: b"[]",
        "an empty object": lambda _: b"{}",
        "a list of the answer": lambda honest: b"[" + honest + b"]",
        "an object around the answer": lambda honest: b'{"data":' + honest + b"}",
        "two answers": lambda honest: honest + honest,
        "two answers in two lines": lambda honest: honest + b"\n" + honest,
        "a comma too many": lambda honest: honest[:-1] + b",}",
        "a comment": lambda honest: b"/* x */" + honest,
        "a call": lambda honest: b"f(" + honest + b");",
        "a guard against inclusion": lambda honest: b")]}',\n" + honest,
        "single quotes": lambda honest: honest.replace(b'"', b"'"),
        "cut": lambda honest: honest[:-1],
        "cut in the middle": lambda honest: honest[: len(honest) // 2],
        "more after the end": lambda honest: honest + b" x",
        "a form": lambda _: b"access_token=a&token_type=Bearer",
        "HTML": lambda _: b"<html>" + SECRET.encode(),
        "XML": lambda _: b"<token>" + SECRET.encode() + b"</token>",
        "binary": lambda _: bytes(range(256)),
        "bottomless": lambda _: b'{"a":' * 10_000,
        "bottomless lists": lambda _: b'{"a":' + b"[" * 10_000,
    }.items()
}
MEMBERS: Final[dict[str, Row]] = {
    "NaN": (beside(b'"x":NaN'), BAD),
    "Infinity": (beside(b'"x":-Infinity'), BAD),
    "a number out of range": (beside(b'"x":1e999'), BAD),
    "a huge number": (beside(b'"x":' + b"9" * 400), BAD),
    "seventeen levels": (beside(b'"x":' + b'{"a":' * 17 + b"1" + b"}" * 17), BAD),
    "a token twice": (beside(b'"access_token":"another"'), BAD),
    "a token twice, once escaped": (beside(b'"\\u0061ccess_token":"another"'), BAD),
    "a type twice": (beside(b'"token_type":"Bearer"'), BAD),
    "a member twice inside another": (beside(b'"x":{"a":1,"a":2}'), BAD),
    "no token": (member(access_token=ABSENT), BAD),
    "an empty token": (member(access_token=""), BAD),
    "a token that is null": (member(access_token=None), BAD),
    "a token that is a number": (member(access_token=7), BAD),
    "a token that is a list": (member(access_token=["a.b.c"]), BAD),
    "a token that is an object": (member(access_token={"jwt": "a.b.c"}), BAD),
    "a token with a space": (lambda said: said.members(access_token=f"{said.document['access_token']} x"), BAD),
    "a token before a space": (lambda said: said.members(access_token=f" {said.document['access_token']}"), BAD),
    "a token of two lines": (
        lambda said: said.members(access_token=f"{said.document['access_token']}\r\nX-Evil: 1"),
        BAD,
    ),
    "a token beyond ASCII": (member(access_token="tökén"), BAD),
    "a token of 70 KB": (member(access_token="a" * 70_000), frozenset({Reason.STS_TOO_LARGE})),
    "names in capitals": (
        body(lambda honest: honest.replace(b'"access_token"', b'"ACCESS_TOKEN"').replace(b"token_type", b"TOKEN_TYPE")),
        BAD,
    ),
    "no token type": (member(token_type=ABSENT), BAD),
    "a token type that is null": (member(token_type=None), BAD),
    "a token type that is a list": (member(token_type=["Bearer"]), BAD),
    "DPoP": (member(token_type="DPoP"), TYPE),
    "MAC": (member(token_type="mac"), TYPE),
    "a token type with a space": (member(token_type="Bearer "), TYPE),
    "an unheard-of token type": (member(token_type=SECRET), TYPE),
    "issued an ID token": (member(issued_token_type="urn:ietf:params:oauth:token-type:id_token"), TYPE),
    "issued a refresh token": (member(issued_token_type="urn:ietf:params:oauth:token-type:refresh_token"), TYPE),
    "issued SAML": (member(issued_token_type="urn:ietf:params:oauth:token-type:saml2"), TYPE),
    "issued a transaction token": (member(issued_token_type="urn:ietf:params:oauth:token-type:txn_token"), TYPE),
    "issued null": (member(issued_token_type=None), TYPE),
    "issued a list": (member(issued_token_type=["urn:ietf:params:oauth:token-type:access_token"]), TYPE),
    "a lifetime in a text": (member(expires_in="300"), BAD),
    "a lifetime that is true": (member(expires_in=True), BAD),
    "a lifetime that is null": (member(expires_in=None), BAD),
    "no lifetime at all": (member(expires_in=0), BAD),
    "a negative lifetime": (member(expires_in=-1), BAD),
    "a fraction of a lifetime": (member(expires_in=299.5), BAD),
    "a lifetime of 10^20 s": (verbatim("expires_in", b"1" + b"0" * 20), BAD),
    "a lifetime of 1e2 s": (verbatim("expires_in", b"1e2"), BAD),
    "a lifetime of 70 years": (member(expires_in=2**31 + 1), BAD),
    "an error": (member(error="invalid_request"), BAD),
    "an error that is null": (member(error=None), BAD),
    "a refresh token": (member(refresh_token=SECRET), BAD),
    "a refresh token that is null": (member(refresh_token=None), BAD),
    "a scope in a list": (member(scope=["crm.read"]), BAD),
    "a scope that is null": (member(scope=None), BAD),
    "a scope that is a number": (member(scope=7), BAD),
    "a scope of two lines": (member(scope="crm.read\ndocs.read"), BAD),
    "a scope in quotes": (member(scope='"crm.read"'), BAD),
}
FRAMES: Final[dict[str, Row]] = {
    "nothing at all": (lambda _said: b"", AWAY),
    "no HTTP": (lambda _said: b"SSH-2.0-OpenSSH_9.9\r\n", BAD),
    "HTTP/0.9": (lambda said: said.reply.body, BAD),
    "HTTP/2": (
        lambda _said: b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00",
        BAD,
    ),
    "two lengths": (wire(lambda honest: sized(honest, len(honest)), b"Content-Length: 2"), BAD),
    "a list of lengths": (wire(lambda honest: b"Content-Length: %d, 2\r\n\r\n" % len(honest) + honest), BAD),
    "a negative length": (wire(lambda honest: sized(honest, -1)), BAD),
    "a length with a sign": (wire(lambda honest: b"Content-Length: +%d\r\n\r\n" % len(honest) + honest), BAD),
    "a length in hex": (wire(lambda honest: b"Content-Length: 0x%x\r\n\r\n" % len(honest) + honest), BAD),
    "a length beyond 64 bits": (wire(lambda honest: sized(honest, 2**64 + len(honest))), BAD),
    "longer than it is": (wire(lambda honest: sized(honest, len(honest) + 5)), BAD),
    "shorter than it is": (wire(lambda honest: sized(honest, len(honest) - 5)), BAD),
    "length and chunks": (wire(lambda honest: sized(chunked(honest), len(honest)), CHUNKED), BAD),
    "chunks, cut": (wire(lambda honest: b"\r\n" + chunked(honest)[:-12], CHUNKED), BAD),
    "chunks without an end": (wire(lambda honest: b"\r\n" + chunked(honest)[:-5], CHUNKED), BAD),
    "a chunk of no size": (wire(lambda honest: b"\r\nxyz\r\n" + honest, CHUNKED), BAD),
    "a chunk of negative size": (wire(lambda honest: b"\r\n-5\r\n" + honest, CHUNKED), BAD),
    "a chunk beyond 64 bits": (wire(lambda honest: b"\r\n" + b"f" * 17 + b"\r\n" + honest, CHUNKED), BAD),
    "a chunk longer than its size": (wire(lambda honest: b"\r\n2\r\n" + honest + b"\r\n0\r\n\r\n", CHUNKED), BAD),
    "chunks in gzip": (wire(lambda honest: b"\r\n" + chunked(honest), b"Transfer-Encoding: gzip, chunked"), BAD),
    "chunks, misspelt": (wire(lambda honest: b"\r\n" + chunked(honest), b"Transfer-Encoding: xchunked"), BAD),
    "a field without a colon": (field("Evil"), BAD),
    "a space before a colon": (field("Evil : 1"), BAD),
    "a folded field": (field("X: a\r\n b"), BAD),
    "a NUL in a field": (field("X: a\x00b"), BAD),
    "a bare CR in a field": (field("X: a\rContent-Length: 1"), BAD),
    "an endless field": (field("X: " + "x" * 100_000), BAD),
    "a thousand fields": (field("\r\n".join(f"X{number}: 1" for number in range(1000))), BAD),
    "an endless first line": (lambda _said: b"HTTP/1.1 200 " + b"x" * 100_000, BAD),
    "10 MB": (wire(lambda _: sized(b" " * 10_000_000, 10_000_000)), frozenset({Reason.STS_TOO_LARGE})),
    "10 MB in chunks": (
        wire(lambda _: b"\r\n" + chunked(b" " * 10_000_000, 65536), CHUNKED),
        frozenset({Reason.STS_TOO_LARGE}),
    ),
}
EVERYWHERE: Final[Mapping[str, Row]] = {
    **{f"status: {name}": row for name, row in STATUSES.items()},
    **{f"media: {name}": row for name, row in MEDIA.items()},
    **{f"encoding: {name}": row for name, row in ENCODINGS.items()},
    **{f"shape: {name}": row for name, row in SHAPES.items()},
    **{f"member: {name}": row for name, row in MEMBERS.items()},
    **{f"frame: {name}": row for name, row in FRAMES.items()},
}


RIGHT: Final[Mapping[str, Lie]] = {
    "an unknown member": member(unheard_of={"x": [1, None, "ü"]}),
    "members in another order": lambda said: said.raw(encode(dict(reversed(said.document.items())))),
    "indented": lambda said: said.raw(json.dumps(said.document, indent=4).encode()),
    "white space around": body(lambda honest: b" \r\n\t" + honest + b"\n\n"),
    "everything escaped": lambda said: said.raw(said.reply.body.replace(b"access_token", b"\\u0061ccess\\u005ftoken")),
    "no lifetime": member(expires_in=ABSENT),
    "a long lifetime": member(expires_in=10**6),
    "a token type in lower case": lambda said: said.members(token_type=said.document["token_type"].lower()),
    "a token type in capitals": lambda said: said.members(token_type=said.document["token_type"].upper()),
    "a charset": kind(f"{JSON};charset=UTF-8"),
    "another spelling of JSON": kind("CONTENT-TYPE: Application/JSON ; Charset=utf-8"),
    "no reason phrase": lambda said: said.raw().replace(b" 200 X\r\n", b" 200 \r\n", 1),
    "a cookie": field("Set-Cookie: session=4711; Path=/"),
    "a place elsewhere": field("Location: ELSEWHERE"),
    "a refresh elsewhere": field("Refresh: 0; url=ELSEWHERE"),
    "a link elsewhere": field("Link: <ELSEWHERE>; rel=canonical"),
    "another service elsewhere": field('Alt-Svc: h2="evil.example:443"'),
    "a challenge": field("DPoP-Nonce: eyJ7S_zG"),
    "a validator": field('ETag: "1"'),
    "chunks": wire(lambda honest: b"\r\n" + chunked(honest), CHUNKED),
    "a chunk for each byte": wire(lambda honest: b"\r\n" + chunked(honest, 1), CHUNKED),
    "an interim answer": lambda said: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + said.raw(),
    "the end of the connection": field("Connection: close"),
    "as it is": lambda said: encode_reply(said.reply),
}

# Written slowly or not to the end, on a connection that stays open.
SILENT: Final[Mapping[str, Lie]] = {
    "nothing": lambda _said: b"",
    "half a first line": lambda _said: b"HTTP/1.1 2",
    "half a head": lambda said: said.raw()[:30],
    "a head without its body": lambda said: said.raw().partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "half a body": lambda said: said.raw()[:-10],
    "chunks without an end": wire(lambda honest: b"\r\n" + chunked(honest)[:-5], CHUNKED),
    "interim answers alone": lambda _said: b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
}
