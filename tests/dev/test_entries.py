from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import ConfigError
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.entries import Entry, Selectors, parse_entries
from tests.dev.conftest import MakePeer

ACME = TrustDomain("acme.example")
PARTNER = TrustDomain("partner.example")
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")


def parse(text: str) -> tuple[Entry, ...]:
    return parse_entries(text, [ACME, PARTNER])


def one(members: str) -> str:
    return f"entries:\n  - {{spiffe_id: {PLANNER}, {members}}}\n"


def test_an_entry_is_read_whole() -> None:
    text = one(
        "selectors: {uid: 1000, path: /usr/bin/python3, pids: [1, 2]}, dns_names: [planner.internal], ttl_s: 60, "
        "hint: internal, federates_with: [partner.example]"
    )
    assert parse(text) == (
        Entry(
            spiffe_id=PLANNER,
            selectors=Selectors(uid=1000, path=Path("/usr/bin/python3"), pids=frozenset({1, 2})),
            dns_names=("planner.internal",),
            ttl_s=60,
            hint="internal",
            federates_with=frozenset({PARTNER}),
        ),
    )


def test_what_is_left_out_has_a_plain_default() -> None:
    (entry,) = parse(one("selectors: {uid: 0}"))
    assert (entry.dns_names, entry.ttl_s, entry.hint, entry.federates_with) == ((), 3600, "", frozenset())


def test_no_entries_is_a_valid_file() -> None:
    assert parse("entries: []") == ()


REFUSED = {
    "no yaml": ("entries: [", "entries"),
    "empty": ("", "entries"),
    "a list": ("[]", "entries"),
    "another key beside": ("entries: []\nmore: 1", "entries"),
    "not a list": ("entries: {}", "entries"),
    "a doubled key": (one("hint: a, hint: b, selectors: {uid: 1}"), "entries"),
    "a doubled selector": (one("selectors: {uid: 1, uid: 2}"), "entries"),
    "an entry that is not a mapping": ("entries: [1]", "entries[0]"),
    "an unknown key": (one("selectors: {uid: 1}, admin: true"), "entries[0]"),
    "no spiffe id": ("entries: [{selectors: {uid: 1}}]", "entries[0].spiffe_id"),
    "no valid spiffe id": (
        "entries: [{spiffe_id: spiffe://acme.example, selectors: {uid: 1}}]",
        "entries[0].spiffe_id",
    ),
    "a trust domain not served": (
        "entries: [{spiffe_id: spiffe://other.example/a, selectors: {uid: 1}}]",
        "entries[0].spiffe_id",
    ),
    "no selectors": (one("hint: a"), "entries[0].selectors"),
    "empty selectors": (one("selectors: {}"), "entries[0].selectors"),
    "null selectors": (one("selectors: null"), "entries[0].selectors"),
    "selectors in a list": (one("selectors: [uid]"), "entries[0].selectors"),
    "an unknown selector": (one("selectors: {uid: 1, gid: 1}"), "entries[0].selectors"),
    "uid true": (one("selectors: {uid: true}"), "entries[0].selectors.uid"),
    "uid null": (one("selectors: {uid: null}"), "entries[0].selectors.uid"),
    "uid as text": (one("selectors: {uid: '0'}"), "entries[0].selectors.uid"),
    "uid negative": (one("selectors: {uid: -1}"), "entries[0].selectors.uid"),
    "uid that means nobody": (one("selectors: {uid: 4294967295}"), "entries[0].selectors.uid"),
    "a relative path": (one("selectors: {path: python3}"), "entries[0].selectors.path"),
    "a path that is not text": (one("selectors: {path: 1}"), "entries[0].selectors.path"),
    "pids as one number": (one("selectors: {pids: 1}"), "entries[0].selectors.pids[0]"),
    "pid zero": (one("selectors: {pids: [1, 0]}"), "entries[0].selectors.pids[1]"),
    "pid true": (one("selectors: {pids: [true]}"), "entries[0].selectors.pids[0]"),
    "a dns name with a wildcard": (one("selectors: {uid: 1}, dns_names: ['*.a']"), "entries[0].dns_names[0]"),
    "a dns name with a line": (one('selectors: {uid: 1}, dns_names: ["a\\n"]'), "entries[0].dns_names[0]"),
    "one dns name": (one("selectors: {uid: 1}, dns_names: a.b"), "entries[0].dns_names"),
    "a socket that is not a path": (one("selectors: {socket: api.sock}"), "entries[0].selectors.socket"),
    "ttl too short": (one("selectors: {uid: 1}, ttl_s: 1"), "entries[0].ttl_s"),
    "ttl too long": (one("selectors: {uid: 1}, ttl_s: 604801"), "entries[0].ttl_s"),
    "ttl as a fraction": (one("selectors: {uid: 1}, ttl_s: 60.0"), "entries[0].ttl_s"),
    "a hint that is not text": (one("selectors: {uid: 1}, hint: 1"), "entries[0].hint"),
    "a hint with a control character": (one('selectors: {uid: 1}, hint: "a\\u0007"'), "entries[0].hint"),
    "federation with nobody served": (
        one("selectors: {uid: 1}, federates_with: [other.example]"),
        "entries[0].federates_with",
    ),
    "federation named twice": (
        one("selectors: {uid: 1}, federates_with: [partner.example, partner.example]"),
        "entries[0].federates_with",
    ),
    "federation as text": (one("selectors: {uid: 1}, federates_with: partner.example"), "entries[0].federates_with"),
}


@pytest.mark.parametrize(("text", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_meant_is_refused_with_its_field(text: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.problems[0].field == field


@pytest.mark.parametrize("members", ["selectors: {uid: 0}, ttl_s: 2", "selectors: {uid: 4294967294}, ttl_s: 604800"])
def test_the_edges_of_the_ranges_are_inside(members: str) -> None:
    assert len(parse(one(members))) == 1


def test_every_problem_is_told_at_once() -> None:
    text = "entries:\n- {spiffe_id: x, selectors: {uid: a}}\n- {spiffe_id: y, selectors: {pids: [0]}, ttl_s: 0}"
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert [problem.field for problem in caught.value.problems] == [
        "entries[0].spiffe_id",
        "entries[0].selectors.uid",
        "entries[1].spiffe_id",
        "entries[1].selectors.pids[0]",
        "entries[1].ttl_s",
    ]


@pytest.mark.parametrize(
    ("selectors", "matches"),
    [
        (Selectors(uid=1000), True),
        (Selectors(uid=1001), False),
        (Selectors(uid=0), False),
        (Selectors(path=Path("/usr/bin/agent")), True),
        (Selectors(path=Path("/usr/bin/other")), False),
        (Selectors(pids=frozenset({4711})), True),
        (Selectors(pids=frozenset({4712})), False),
        (Selectors(pids=frozenset()), False),
        (Selectors(uid=1000, path=Path("/usr/bin/agent"), pids=frozenset({4711})), True),
        (Selectors(uid=1001, path=Path("/usr/bin/agent"), pids=frozenset({4711})), False),
        (Selectors(uid=1000, path=Path("/usr/bin/other"), pids=frozenset({4711})), False),
        (Selectors(uid=1000, path=Path("/usr/bin/agent"), pids=frozenset({4712})), False),
    ],
)
def test_all_selectors_that_are_given_must_match(selectors: Selectors, *, matches: bool, make_peer: MakePeer) -> None:
    assert selectors.match(make_peer(pid=4711, uid=1000, path="/usr/bin/agent")) is matches


def test_a_socket_of_its_own_tells_a_workload(make_peer: MakePeer) -> None:
    selectors = Selectors(socket=Path("/run/writer/api.sock"))
    assert selectors.match(make_peer(socket="/run/writer/api.sock"))
    assert not selectors.match(make_peer(socket="/run/planner/api.sock"))
    assert not selectors.match(make_peer())


@pytest.mark.parametrize(
    ("selectors", "matches"),
    [
        (Selectors(socket=Path("/run/s")), True),
        (Selectors(socket=Path("/run/s"), uid=1000), True),
        (Selectors(socket=Path("/run/s"), uid=1001), False),
        (Selectors(socket=Path("/run/s"), path=Path("/usr/bin/agent")), False),
        (Selectors(socket=Path("/run/s"), pids=frozenset({4711})), False),
        (Selectors(uid=1000), False),
    ],
)
def test_a_process_of_another_container_is_told_by_its_socket_or_not_at_all(
    selectors: Selectors, *, matches: bool, make_peer: MakePeer
) -> None:
    assert selectors.match(make_peer(pid=0, path=None, socket="/run/s")) is matches


def test_a_peer_whose_path_is_unknown_matches_no_path(make_peer: MakePeer) -> None:
    assert not Selectors(path=Path("/usr/bin/agent")).match(make_peer(path=None))


def test_selectors_that_would_match_everybody_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="every process"):
        Selectors()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.from_regex(re.compile(r"entries: \[\{[a-z_]{1,12}: [^}]{0,30}\}\]"), fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text), tuple)
