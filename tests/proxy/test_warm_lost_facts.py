"""The facts of a message that the native engine does not keep byte for byte: both engines make the same of each.

A fact that became a number, a flag or a place can be read in another way than its text. Each is a row here and in
docs/native.md, with the spellings that could differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sidecar.wire.message import NOT_PASSED
from tests.fuzz.mutate import names_in_values
from tests.native import module, needs_native
from tests.proxy.engines import EngineWorld, OutboundWorld, warm_request
from tests.proxy.test_warm import WARM
from tests.proxy.test_warm_outbound import CALL
from tests.proxy.warm import ANSWER

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "sidecar" / "native" / "src"
READ: Final = {"head.rs": ("Fields", "RequestHead", "AnswerHead"), "fields.rs": ("Own",)}
"""The structures in which the engine holds what it has read of a head."""


@dataclass(frozen=True)
class Fact:
    """``held``: members of structures. Then fields of requests and of answers, and whole heads of both."""

    held: tuple[str, ...]
    fields: tuple[str, ...] = ()
    answer_fields: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


_LENGTHS: Final = tuple(f"Content-Length: {size}" for size in ("0", "00", "+0", "-0", "0x0", "0, 0", ""))
FACTS: Final[Mapping[str, Fact]] = {
    "request line": Fact(
        ("RequestHead.method", "RequestHead.target"),
        lines=tuple(
            f"{method} {target} HTTP/1.{minor}"
            for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "post", "SEARCH")
            for target in ("/search", "/search?", "/search?a=%2e", "/search#a", "/search/", "http://crm.mesh/search")
            for minor in "10"
        ),
    ),
    "`Host`": Fact(("RequestHead.host",), fields=("Host: other", "hOST: writer:7443", "X-Host: a", "Host:")),
    "names of fields": Fact(
        ("Fields.all",),
        fields=(
            "x-OWN: 1",
            "X_Own: 1",
            "Content-length: 0",
            "X-Forwarded-For: a",
            "Delegation-Scope: a",
            "Z" * 70 + ": 1",
        ),
        answer_fields=("x-OWN: 1", "Delegation-Subject: a", "delegation_reason: a", "Z" * 70 + ": 1"),
    ),
    "values of fields": Fact(
        ("Fields.end",),
        fields=(
            "X: \t v \t ",
            "X:v",
            "X:",
            "X: v, w\r\nX: w",
            "Cookie: a=b; c=d\r\nCookie: e=f",
            "X: a\t\tb",
            "X: \xe9",
        ),
        answer_fields=("Set-Cookie: a=b\r\nSet-Cookie: c=d", "X: \t v \t ", "X:", "X: \xe9"),
    ),
    "length of the body": Fact(("Fields.length",), fields=_LENGTHS, answer_fields=("Content-Length: 1024",)),
    "`Connection`": Fact(
        ("Fields.option", "Fields.closes"),
        fields=tuple(
            f"Connection: {option}"
            for option in (
                "close",
                "keep-alive",
                "Keep-Alive",
                "Close",
                "close, x",
                "x-own",
                "",
                "close\r\nConnection: x",
            )
        ),
        answer_fields=("Connection: keep-alive", "Connection: close", "Connection: x-own", "Connection: Keep-Alive"),
    ),
    "`Authorization`, `Delegation-Handle`, `Delegation-Call`": Fact(
        ("Own.authorization", "Own.handle", "Own.call_in"),
        fields=(
            "Authorization: Basic eA==",
            "Delegation-Handle: x",
            f"Delegation-Call: {'c' * 32}",
            f"Delegation-Call: {'C' * 32}",
            f"Delegation-Call: {'c' * 32}\r\nDelegation-Call: {'d' * 32}",
        ),
    ),
    "`traceparent`": Fact(
        ("Own.trace", "Own.traceparent"),
        fields=(
            *(f"traceparent: 00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("00", "01", "02", "03", "ff", "0F", "1")),
            f"traceparent: 01-{'a' * 32}-{'b' * 16}-01",
            f"traceparent: 00-{'A' * 32}-{'b' * 16}-01",
            f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\ntracestate: a=1",
        ),
    ),
    "status line of an answer": Fact(
        ("AnswerHead.status", "AnswerHead.fields", "RequestHead.fields"),
        statuses=tuple(
            f"HTTP/1.{line}" for line in ("1 200 Fine", "1 200", "1 200 ", "1 299 Odd", "0 200 OK", "1 500 \xe9")
        ),
    ),
    "kind of an answer": Fact(
        (),
        answer_fields=(
            "Content-Type: text/event-stream",
            "Content-Type: Text/Event-Stream;charset=utf-8",
            "Content-Type: text/event-streams",
            "content-type: text/plain\r\nContent-Type: text/event-stream",
        ),
    ),
    "other hop-by-hop fields": Fact(
        (),
        fields=(
            *(f"{name.decode().title()}: 1" for name in sorted(NOT_PASSED)),
            *("Expect: 100-continue", "Upgrade: h2c", "Transfer-Encoding: chunked", "TE: trailers", "Trailer: x-own"),
        ),
        answer_fields=tuple(
            f"{name.decode().title()}: 1" for name in sorted(NOT_PASSED - {b"content-length", b"transfer-encoding"})
        ),
    ),
}


def _members() -> set[str]:
    """Return the members of the structures that the engine reads a head into."""
    found = set()
    for file, names in READ.items():
        source = (SOURCES / file).read_text()
        for name in names:
            body = re.search(rf"pub struct {name}(?:<'a>)? \{{\n(.*?)\n\}}", source, re.DOTALL)
            assert body is not None, name
            found |= {f"{name}.{member}" for member in re.findall(r"^    pub (\w+):", body[1], re.MULTILINE)}
    return found


def test_each_fact_that_the_engine_holds_has_a_row() -> None:
    held = [member for fact in FACTS.values() for member in fact.held]
    assert len(held) == len(set(held))
    assert set(held) == _members()


def test_the_page_has_the_same_rows() -> None:
    page = (ROOT / "docs" / "native.md").read_text().partition("## Rewritten parts of a message")[2]
    rows = re.findall(r"^\| (.*?) \| ", page.partition("\n## ")[0], re.MULTILINE)
    assert rows[2:] == list(FACTS)


def _requests(fact: Fact, *, inbound: bool) -> Iterator[bytes]:
    """Yield requests with each spelling, alone and beside a field of each name that a value of the request holds."""
    warm = WARM if inbound else CALL
    for spelled in ("", *fact.fields):
        names = [b"", *names_in_values([*warm.split(b"\r\n")[1:], *spelled.encode("latin-1").split(b"\r\n")])]
        for name in names:
            also = spelled.encode("latin-1") + (b"\r\n" + name + b": 1" if name else b"")
            also = also.strip(b"\r\n") + b"\r\n" if also else b""
            line, _, rest = warm.partition(b"\r\n")
            host, _, rest = rest.partition(b"\r\n")
            yield b"\r\n".join((line, host, also + rest))
    for first_line in fact.lines:
        yield first_line.encode() + b"\r\n" + warm.partition(b"\r\n")[2]


def _answers(fact: Fact) -> Iterator[bytes]:
    """Yield answers with each spelling, in the same way."""
    for spelled in fact.answer_fields:
        for name in (b"", *names_in_values(spelled.encode("latin-1").split(b"\r\n"))):
            also = spelled.encode("latin-1") + b"\r\n" + (name + b": 1\r\n" if name else b"")
            yield b"HTTP/1.1 200 OK\r\n" + also + b"Content-Length: 3\r\n\r\nabc"
    for line in fact.statuses:
        yield line.encode("latin-1") + b"\r\nContent-Length: 3\r\n\r\nabc"


@needs_native
@pytest.mark.parametrize("world", [EngineWorld, OutboundWorld], ids=["inbound", "outbound"])
@pytest.mark.parametrize("name", FACTS)
async def test_both_engines_make_the_same_of_each_spelling(tmp_path: Path, name: str, world: type[EngineWorld]) -> None:
    inbound = world is EngineWorld
    warm = warm_request() if inbound else CALL
    python, native = world("python", tmp_path), world("native", tmp_path)
    for data in _requests(FACTS[name], inbound=inbound):
        for one in (warm, data):
            assert python.exchange(one, ANSWER) == native.exchange(one, ANSWER), data
    for answer in _answers(FACTS[name]):
        assert python.exchange(warm, answer) == native.exchange(warm, answer), answer
    assert await python.records() == await native.records()
    assert python.counted == native.counted
    assert native.taken > 2, "the native engine took too little for this test to say anything"


@needs_native
@pytest.mark.parametrize("world", [EngineWorld, OutboundWorld], ids=["inbound", "outbound"])
async def test_a_field_that_connection_names_ends_here_and_another_goes_on(
    tmp_path: Path, world: type[EngineWorld]
) -> None:
    warm = warm_request() if world is EngineWorld else CALL
    head, _, rest = warm.partition(b"\r\n")
    native = world("native", tmp_path)
    native.exchange(warm, ANSWER)
    for option, passes in ((b"close", False), (b"keep-alive", True)):
        sent = native.exchange(b"%b\r\nConnection: %b\r\nClose: 1\r\n%b" % (head, option, rest), ANSWER).sent
        assert (b"\r\nclose: 1\r\n" in sent) is passes
    await native.log.close()


@needs_native
@pytest.mark.parametrize("option", [b"close", b"keep-alive", b"Keep-Alive"])
def test_a_head_with_a_field_that_connection_names_is_not_certain(option: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n%b: 1\r\n\r\n"
    assert module().read_request(head % (option, b"X-Own"), 800, 136, 12) is not None
    assert (module().read_request(head % (option, b"CLOSE"), 800, 136, 12) is None) == (option == b"close")
