"""A key in an answer is found in each spelling, in each place, and wherever the answer is cut."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
from collections.abc import Callable
from dataclasses import replace
from html.entities import html5
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.outbound_routes import OutboundRoutes
from sidecar.features.outside.key_spellings import KeySpellings
from sidecar.features.outside.keyed_forwarding import AnswerScreen
from tests.core.test_outside import HOOK, KEY, MODEL, OPEN
from tests.core.world import POLICY, TO_CRM
from tests.proxy.agent_calls import OWN, AgentCalls, bearer

SECRET = 'sk-Secret_of+the/"sidecar"&=%41'
TO_MODEL = {"target": "/model/v1/messages", "host": OWN}
ENTITIES = {value: name.rstrip(";") for name, value in html5.items() if len(value) == 1}


def percent(text: str) -> str:
    return "".join(f"%{ord(one):02X}" for one in text)


def coded(text: bytes, before: int, behind: bytes = b"!") -> bytes:
    return base64.b64encode(b'{"'[:before] + text + behind)


def wrapped(text: bytes, at: int, line_end: bytes = b"\n") -> bytes:
    return text[:at] + line_end + line_end.join(text[place : place + 40] for place in range(at, len(text), 40))


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "in lower case": lambda key: key.lower().encode(),
    "in upper case": lambda key: key.upper().encode(),
    "percent, where needed": lambda key: quote(key, safe="").encode(),
    "percent, all of it": lambda key: percent(key).encode(),
    "percent, in lower case": lambda key: percent(key).lower().encode(),
    "percent, twice": lambda key: quote(percent(key), safe="").encode(),
    "percent, three times": lambda key: quote(quote(percent(key), safe=""), safe="").encode(),
    "JSON, where needed": lambda key: json.dumps(key).encode(),
    "JSON, with slashes escaped": lambda key: json.dumps(key).replace("/", "\\/").encode(),
    "JSON, all of it": lambda key: "".join(f"\\u{ord(one):04x}" for one in key).encode(),
    "JSON, in upper case": lambda key: "".join(f"\\u{ord(one):04X}" for one in key).encode(),
    "JSON in JSON": lambda key: json.dumps(json.dumps("".join(f"\\u{ord(one):04x}" for one in key))).encode(),
    "backslash and x": lambda key: "".join(f"\\x{ord(one):02x}" for one in key).encode(),
    "backslash and braces": lambda key: "".join(f"\\u{{{ord(one):x}}}" for one in key).encode(),
    "long backslash escapes": lambda key: "".join(f"\\U{ord(one):08x}" for one in key).encode(),
    "every other one escaped": lambda key: "".join(
        f"\\u{ord(one):04x}" if at % 2 else one for at, one in enumerate(key)
    ).encode(),
    "HTML, where needed": lambda key: html.escape(key).encode(),
    "HTML, by names": lambda key: "".join(f"&{ENTITIES[one]};" if one in ENTITIES else one for one in key).encode(),
    "HTML, decimal": lambda key: "".join(f"&#{ord(one)};" for one in key).encode(),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(one):x};" for one in key).encode(),
    "HTML, with zeros": lambda key: "".join(f"&#X00{ord(one):X};" for one in key).encode(),
    "HTML, twice": lambda key: html.escape(html.escape(key)).encode(),
    "HTML, decimal, twice": lambda key: html.escape("".join(f"&#{ord(one)};" for one in key)).encode(),
    "HTML in JSON": lambda key: json.dumps(html.escape(key)).encode(),
    "percent in JSON": lambda key: "".join(f"\\u0025{ord(one):02x}" for one in key).encode(),
    "JSON in percent": lambda key: quote("".join(f"\\u{ord(one):04x}" for one in key), safe="").encode(),
    "quoted-printable": lambda key: quopri.encodestring(key.encode()),
    "quoted-printable, all of it": lambda key: "".join(f"={ord(one):02X}" for one in key).encode(),
    "quoted-printable, in lines": lambda key: "=\r\n".join(f"={ord(one):02X}" for one in key).encode(),
    "hex": lambda key: key.encode().hex().encode(),
    "hex, in upper case": lambda key: key.encode().hex().upper().encode(),
    "base64": lambda key: coded(key.encode(), 0),
    "base64, one byte on": lambda key: coded(key.encode(), 1),
    "base64, two bytes on": lambda key: coded(key.encode(), 2),
    "base64, at the end": lambda key: coded(key.encode(), 0, b""),
    "base64, at the end, without padding": lambda key: coded(key.encode(), 1, b"").rstrip(b"="),
    "base64, of URLs": lambda key: base64.urlsafe_b64encode(key.encode() + b"\xff\xff"),
    "base64, of URLs, two bytes on": lambda key: base64.urlsafe_b64encode(b"\xff\xff" + key.encode() + b"\xff"),
    "base64, in JSON": lambda key: json.dumps(coded(key.encode(), 1).decode()).replace("/", "\\/").encode(),
    "base64, in percent": lambda key: quote(coded(key.encode(), 1).decode(), safe="").encode(),
    "base64, in lines": lambda key: wrapped(coded(key.encode(), 1), 30, b"\r\n"),
    "base64, a line ends within its beginning": lambda key: wrapped(coded(key.encode(), 0), 2),
    "base64, in lines of JSON": lambda key: json.dumps(wrapped(coded(key.encode(), 1), 30).decode()).encode(),
    "base64 of UTF-16": lambda key: coded(key.encode("utf-16-le"), 0),
    "base64 of UTF-16, big end first": lambda key: coded(key.encode("utf-16-be"), 2),
    "UTF-16": lambda key: key.encode("utf-16"),
    "UTF-16, little end first": lambda key: key.encode("utf-16-le"),
    "UTF-16, big end first": lambda key: key.encode("utf-16-be"),
    "UTF-32": lambda key: key.encode("utf-32"),
    "UTF-32, big end first": lambda key: key.encode("utf-32-be"),
    "JSON in UTF-16": lambda key: json.dumps("".join(f"\\u{ord(one):04x}" for one in key)).encode("utf-16-le"),
    "percent in UTF-16": lambda key: percent(key).encode("utf-16-be"),
    "UTF-16 in JSON": lambda key: json.dumps(key.encode("utf-16-le").decode("latin-1")).encode(),
    "UTF-16 as a language shows bytes": lambda key: repr(key.encode("utf-16-be"))[2:-1].encode(),
    "UTF-16 in percent": lambda key: quote(key.encode("utf-16-le"), safe="").encode(),
    "UTF-32 in JSON": lambda key: json.dumps(key.encode("utf-32-be").decode("latin-1")).encode(),
    "UTF-8 with a mark": lambda key: b"\xef\xbb\xbf" + key.encode(),
}
IN_FIELDS = {name: spell for name, spell in SPELLINGS.items() if not {*b"\0\n"} & {*spell(SECRET)}}
each_spelling = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)


@each_spelling
def test_each_spelling_is_found_in_a_whole_and_another_key_is_not(spell: Callable[[str], bytes]) -> None:
    around = 'a "text" of %41 &amp; \\u0041 =3D\r\n'.encode("utf-16-le" if b"\0" in spell(SECRET) else "utf-8")
    whole = around + spell(SECRET) + around
    assert not AnswerScreen(SECRET.encode()).lets(whole)
    other = SECRET.replace("Secret", "Public")
    assert AnswerScreen(other.encode()).lets(whole)


@each_spelling
def test_each_spelling_is_found_wherever_the_answer_is_cut(spell: Callable[[str], bytes]) -> None:
    """Of all that passes, no spelling of a beginning is longer than the first characters that a line may end in."""
    spelled = spell(SECRET)
    whole = b"before " + spelled + b" behind"
    for cut in range(len(whole) + 1):
        screen = AnswerScreen(SECRET.encode())
        first = screen.feed(whole[:cut])
        second = None if first is None else screen.feed(whole[cut:])
        if second is not None:
            assert screen.rest() is None, cut
            second = b""
        assert len(first or b"") <= 7 + len(spelled) // 4, (cut, first)


RUNS = {
    "backslashes": (b"", b"\\"),
    "percent signs": (b"", b"%"),
    "percent, escaped again and again": (b"%", b"25"),
    "ampersands": (b"", b"&"),
    "ampersands, escaped": (b"", b"&amp;"),
    "an ampersand, escaped again and again": (b"&", b"amp;"),
    "beginnings of numbers": (b"", b"&#0"),
    "zeros of a number": (b"&#", b"0"),
    "beginnings of braces": (b"", b"\\u{0"),
    "zero bytes": (b"s", b"\0"),
    "line breaks": (coded(SECRET.encode(), 0)[:9], b"\n"),
    "soft line breaks": (b"s", b"=\r\n"),
    "beginnings": (b"", b"sk-s"),
}


@pytest.mark.parametrize(("begins", "run"), RUNS.values(), ids=RUNS)
def test_long_runs_cost_no_more_than_their_length_and_are_not_held(begins: bytes, run: bytes) -> None:
    """A look whose cost grows with the square of a run would hardly end at these lengths."""
    screen, content = AnswerScreen(SECRET.encode()), begins + run * (524_288 // len(run))
    came = passed = 0
    for at in range(0, len(content), 65_536):
        piece = content[at : at + 65_536]
        came += len(piece)
        part = screen.feed(piece)
        if part is None:  # cut: it is no spelling of anything
            return
        passed += len(part)
        assert came - passed <= 64 * 4 * len(SECRET)


def test_zero_bytes_of_a_file_pass_behind_what_may_begin_a_key() -> None:
    image = b"s" + bytes(100_000) + b"sk" + bytes(5) + b"end"
    screen = AnswerScreen(SECRET.encode())
    parts = [screen.feed(image[at : at + 1000]) for at in range(0, len(image), 1000)]
    assert b"".join(part or b"" for part in parts) + (screen.rest() or b"") == image


@each_spelling
def test_each_spelling_is_found_byte_by_byte(spell: Callable[[str], bytes]) -> None:
    screen, passed = AnswerScreen(SECRET.encode()), b""
    for octet in b"before " + spell(SECRET):
        part = screen.feed(bytes([octet]))
        if part is None:
            return
        passed += part
    assert screen.rest() is None, passed


TEXT = st.text('sk-Secrt%41u0ab\\&#;=x \n"', max_size=40).map(str.encode)


@given(
    text=TEXT,
    cuts=st.lists(st.integers(0, 40), max_size=6),
    key=st.sampled_from([b"sk-Secret%41", b"sk-sk-sk", b"a" * 9]),
)
def test_whatever_the_pieces_the_same_passes_or_nothing(text: bytes, cuts: list[int], key: bytes) -> None:
    screen, passed, found = AnswerScreen(key), b"", False
    for start, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]):
        part = screen.feed(text[start:end])
        if part is None:
            found = True
            break
        passed += part
        assert text.startswith(passed)
    if not found:
        rest = screen.rest()
        found = rest is None
        assert found or passed + (rest or b"") == text
    if key.lower() in text.lower():
        assert found
    if not found:
        assert AnswerScreen(key).lets(text)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"delta": "hello"}\n\n',
        b"data: [DONE]\n\n",
        b"data: as\n\n",
        b"data: c2s\n\n",
        b": keep-alive\n\n",
        b'data: {"delta": "h\\u00e9 \\n &amp;"}\n\n',
        b'{"url": "https://a.b/c?d=e%20f"}\n',
        "donnée".encode("utf-16-le"),
    ],
)
def test_ordinary_content_is_not_held_back(event: bytes) -> None:
    screen = AnswerScreen(SECRET.encode())
    assert [screen.feed(event) for _ in range(3)] == [event] * 3


@pytest.mark.parametrize("end", [b"s", b"SK", b"sk-Sec", b"%7", b"\\u00", b"&#1", b"c2stU2", b"=\r", b"\\", b"736b"])
def test_what_may_go_on_is_held_back_until_it_does_not(end: bytes) -> None:
    screen = AnswerScreen(SECRET.encode())
    first = screen.feed(b"data " + end)
    assert first is not None
    assert len(first) < len(b"data " + end) or end == b"=\r"
    assert first + (screen.feed(b"\x01 no") or b"") + (screen.rest() or b"") == b"data " + end + b"\x01 no"


def test_the_forms_of_a_key_are_bounded_by_its_length() -> None:
    forms = KeySpellings(b"k" * 4096)
    assert forms.find(b"k" * 4095 + b"x") is not None
    assert forms.find(b"k" * 4096) is None


# --- places in an answer


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    calls = AgentCalls(tmp_path)
    route = replace(MODEL, key=replace(KEY, file=str(file)))
    calls.policy = replace(POLICY, outbound=OutboundRoutes([TO_CRM, route, HOOK]))
    return calls


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def whole(spelled: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(spelled), spelled)


def whole_in_chunks(spelled: bytes) -> bytes:
    return EVENTS + chunk(spelled) + b"0\r\n\r\n"


def in_small_chunks(spelled: bytes) -> bytes:
    size = 1 + len(spelled) // 200  # more than some hundred chunks are read in several turns
    chunks = [chunk(spelled[at : at + size]) for at in range(0, len(spelled), size)]
    return EVENTS + b"".join(chunks) + b"0\r\n\r\n"


def of_an_error(spelled: bytes) -> bytes:
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(spelled), spelled)


PLACES = {"whole": whole, "an error": of_an_error, "chunks": whole_in_chunks, "small chunks": in_small_chunks}


async def exposed(calls: AgentCalls, answer: bytes) -> bool:
    """Let the host answer; return if the agent was told of an exposed key, and nothing else."""
    calls.answer_of_next_hop = answer
    told = await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)
    return (told.status, told.reason) == (502, "credential_exposed") or calls.cut


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_each_spelling_is_found_in_each_place(calls: AgentCalls, place: Callable[[bytes], bytes]) -> None:
    for name, spell in SPELLINGS.items():
        assert await exposed(calls, place(spell(SECRET))), name
        calls.connect_again()
    reasons = [record["reason"] for record in await calls.records() if record["event"] == "request"]
    assert reasons == ["credential_exposed"] * len(SPELLINGS)


async def test_a_key_that_is_complete_only_by_the_end_of_the_answer_is_found_and_recorded(calls: AgentCalls) -> None:
    without_ends = "".join(f"&#{ord(one)}" for one in SECRET).encode()
    calls.answer_of_next_hop = EVENTS + chunk(without_ends)
    await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)
    before = calls.cut
    calls.pool.agent.data_received(b"0\r\n\r\n")
    assert (before, calls.cut) == (False, True)
    *_, record = await calls.records()
    assert record["reason"] == "credential_exposed"


async def test_each_spelling_is_found_in_a_field(calls: AgentCalls) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Echo: a %b b\r\nContent-Length: 0\r\n\r\n"
    for name, spell in IN_FIELDS.items():
        assert await exposed(calls, answer % spell(SECRET).strip()), name
        calls.connect_again()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_another_text_passes_in_each_place(calls: AgentCalls, place: Callable[[bytes], bytes]) -> None:
    text = SECRET.replace("Secret", "Public").encode()
    calls.answer_of_next_hop = place(text)
    told = await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)
    assert told.status in (200, 404)
    arrived = calls.arrived.partition(b"\r\n\r\n")[2]
    content = re.sub(rb"[0-9a-f]+\r\n([^\r]*)\r\n", rb"\1", arrived) if b"chunked" in calls.arrived else arrived
    assert content == text


HEAD = "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
UNSEARCHED = {
    "UTF-7": ("200 OK", "text/plain; charset=utf-7", b"+AHMAaw-"),
    "EBCDIC": ("200 OK", "text/plain;charset=IBM037", b"x"),
    "ISO-2022": ("200 OK", 'text/plain; charset="iso-2022-jp"', b"x"),
    "two character sets": ("200 OK", "text/plain; charset=utf-8; charset=utf-7", b"x"),
    "an unknown set": ("200 OK", "text/plain; charset=", b"x"),
    "a zip file": ("200 OK", "application/zip", b"x"),
    "a document that is one": ("200 OK", "application/vnd.openxmlformats-officedocument.wordprocessingml", b"x"),
    "gzip by its type": ("200 OK", "application/vnd.a+gzip; x=y", b"x"),
    "gzip by its mark": ("200 OK", "application/octet-stream", b"\x1f\x8bx"),
    "zlib by its mark": ("200 OK", "application/octet-stream", b"x\x9cx"),
    "lz4 by its mark": ("200 OK", "application/octet-stream", b"\x04\x22\x4d\x18x"),
    "zip by its mark": ("200 OK", "application/json", b"PK\x03\x04x"),
    "a range": ("206 Partial Content", "text/plain", b"x"),
    "a change": ("226 IM Used", "text/plain", b"x"),
}
SEARCHED = (
    "text/plain",
    "text/html; charset=utf-8",
    "text/plain;charset=UTF-16",
    'a/b; charset="ISO-8859-1"',
    "audio/mpeg",
)


@pytest.mark.parametrize(("status", "kind", "body"), UNSEARCHED.values(), ids=UNSEARCHED)
async def test_an_answer_in_which_the_key_could_hide_is_refused(
    calls: AgentCalls, status: str, kind: str, body: bytes
) -> None:
    calls.answer_of_next_hop = HEAD.format(status, kind, len(body)).encode() + body
    told = await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)
    assert (told.status, told.reason) == (502, "upstream_bad_response")


@pytest.mark.parametrize("pieces", [(b"\x1f\x8bx",), (b"\x1f", b"\x8bx"), (b"P", b"K\x03", b"\x04")])
async def test_an_archive_whose_mark_comes_behind_its_head_is_cut(calls: AgentCalls, pieces: tuple[bytes, ...]) -> None:
    calls.answer_of_next_hop = EVENTS
    told = await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)
    assert told.status == 200
    for piece in pieces:
        assert not calls.cut
        calls.pool.agent.data_received(chunk(piece))
    assert calls.cut
    assert pieces[-1] not in calls.arrived


@pytest.mark.parametrize("kind", SEARCHED)
async def test_other_types_of_content_pass(calls: AgentCalls, kind: str) -> None:
    calls.answer_of_next_hop = HEAD.format("200 OK", kind, 4).encode() + b"text"
    assert (await calls.call(bearer(calls.handle(may_call=OPEN)), **TO_MODEL)).body == b"text"
