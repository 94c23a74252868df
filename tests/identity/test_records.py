from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.identity.records import (
    CLIENT_HELLO,
    MAX_HELLO_EXTENSIONS,
    MAX_KEY_SHARES,
    SERVER_HELLO,
    Opener,
    certificates_in,
    offers_finite_field,
)
from tests.counting import MOST_AT_ONCE, bytecodes
from tests.identity import slow_reader
from tests.identity.sealing import SUITES, Sealer

SECRET = bytes(range(48))


@pytest.mark.parametrize("suite", SUITES)
def test_records_are_opened_in_their_order(suite: str) -> None:
    sealer, opener = Sealer(suite, SECRET), Opener(suite, SECRET)
    first, second = sealer.seal(22, b"first"), sealer.seal(23, b"second", padding=5)
    assert opener.open(first) == (22, b"first")
    assert opener.open(second) == (23, b"second")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("changed", ["again", "out of order", "a byte", "the header", "another secret"])
def test_a_record_that_was_not_sealed_like_that_is_refused(suite: str, changed: str) -> None:
    sealer, opener = Sealer(suite, SECRET), Opener(suite, SECRET)
    first, second = sealer.seal(22, b"first"), sealer.seal(22, b"second")
    record = {
        "again": first,
        "out of order": sealer.seal(22, b"third"),
        "a byte": second[:-1] + bytes([second[-1] ^ 1]),
        "the header": second[:2] + b"\4" + second[3:],
        "another secret": Sealer(suite, SECRET[::-1]).seal(22, b"second"),
    }[changed]
    opener.open(first)
    with pytest.raises(Denied) as denied:
        opener.open(record)
    assert denied.value.reason is Reason.TLS_VERSION


def test_a_record_without_a_type_is_refused() -> None:
    with pytest.raises(Denied, match="no type"):
        Opener(SUITES[0], SECRET).open(Sealer(SUITES[0], SECRET).seal(0, b"\0"))


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(Denied):
        Opener("TLS_GOST_SHA256", SECRET)


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def client_hello(*groups: int, before: bytes = b"") -> bytes:
    shares = b"".join(number(group) + vector(2, b"k") for group in groups)
    extensions = before + number(51) + vector(2, vector(2, shares))
    return bytes(34) + vector(1, b"") + vector(2, b"\x13\1") + vector(1, b"\0") + vector(2, extensions)


def server_hello(group: int | None) -> bytes:
    extensions = number(43) + vector(2, b"\3\4")
    if group is not None:
        extensions += number(51) + vector(2, number(group) + vector(2, b"k"))
    return bytes(34) + vector(1, b"session") + b"\x13\1\0" + vector(2, extensions)


RETRY = bytes(34) + vector(1, b"") + b"\x13\1\0" + vector(2, number(51) + vector(2, number(0x0104)))
X25519, MLKEM, FFDHE2048, FFDHE8192 = 29, 0x11EC, 0x0100, 0x0104
HELLOS = {
    "x25519": (CLIENT_HELLO, client_hello(X25519), False),
    "post-quantum and x25519": (CLIENT_HELLO, client_hello(MLKEM, X25519), False),
    "ffdhe8192": (CLIENT_HELLO, client_hello(FFDHE8192), True),
    "ffdhe2048": (CLIENT_HELLO, client_hello(FFDHE2048), True),
    "ffdhe8192 behind x25519": (CLIENT_HELLO, client_hello(X25519, FFDHE8192), True),
    "ffdhe8192 behind another extension": (
        CLIENT_HELLO,
        client_hello(FFDHE8192, before=number(0) + vector(2, b"x")),
        True,
    ),
    "no share": (CLIENT_HELLO, client_hello(), False),
    "without extensions": (CLIENT_HELLO, client_hello(X25519)[:41], False),
    "the server's x25519": (SERVER_HELLO, server_hello(X25519), False),
    "the server's ffdhe8192": (SERVER_HELLO, server_hello(FFDHE8192), True),
    "the server asks for ffdhe8192": (SERVER_HELLO, RETRY, True),
    "TLS 1.2": (SERVER_HELLO, server_hello(None), False),
}


@pytest.mark.parametrize("case", HELLOS)
def test_a_key_share_of_a_finite_field_is_found(case: str) -> None:
    kind, body, found = HELLOS[case]
    assert offers_finite_field(kind, body) is found


@pytest.mark.parametrize("cut", [0, 10, 35, 38, 45, 50])
def test_a_hello_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(Denied) as denied:
        offers_finite_field(CLIENT_HELLO, client_hello(X25519)[:cut])
    assert denied.value.reason is Reason.TLS_VERSION


def test_the_extensions_of_a_hello_fill_it_exactly() -> None:
    hello = client_hello(X25519)
    at = len(hello) - 13  # the length of the extensions
    assert int.from_bytes(hello[at : at + 2], "big") == 11
    for changed in (
        hello + b"x",
        hello[:at] + number(10) + hello[at + 2 :],  # the last extension goes beyond them
        hello[:at] + number(12) + hello[at + 2 :],
        hello[:-9] + number(8) + hello[-7:],  # the key share alone goes beyond them
    ):
        with pytest.raises(Denied) as denied:
            offers_finite_field(CLIENT_HELLO, changed)
        assert denied.value.reason is Reason.TLS_VERSION
    assert not offers_finite_field(CLIENT_HELLO, hello)


@pytest.mark.parametrize("beyond", [-1, 0, 5], ids=["shorter than its share", "as long", "into the next extension"])
def test_the_list_of_key_shares_fills_its_extension_exactly(beyond: int) -> None:
    share = number(X25519) + vector(2, b"key")
    key_share = number(51) + vector(2, number(len(share) + beyond) + share)
    another = number(0) + vector(2, b"x")  # could be read as a share
    hello = client_hello()[:41] + vector(2, key_share + another)
    if beyond == 0:
        assert not offers_finite_field(CLIENT_HELLO, hello)
    else:
        with pytest.raises(Denied, match="cut short"):
            offers_finite_field(CLIENT_HELLO, hello)


def certificates(*ders: bytes, encrypted: bool = True) -> bytes:
    entries = b"".join(vector(3, der) + (vector(2, b"") if encrypted else b"") for der in ders)
    return (vector(1, b"") if encrypted else b"") + vector(3, entries)


@pytest.mark.parametrize("encrypted", [True, False])
def test_certificates_are_read_as_they_were_written(encrypted: bool) -> None:
    assert certificates_in(certificates(encrypted=encrypted), encrypted=encrypted, most=10) == ()
    body = certificates(b"leaf", b"middle", encrypted=encrypted)
    assert certificates_in(body, encrypted=encrypted, most=10) == (b"leaf", b"middle")


def test_no_more_than_one_too_many_is_read() -> None:
    assert len(certificates_in(certificates(*[b"x"] * 5000), encrypted=True, most=10)) == 11


@pytest.mark.parametrize("cut", [0, 1, 3, 6, 10])
def test_a_list_of_certificates_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(Denied) as denied:
        certificates_in(certificates(b"leaf", b"middle")[:cut], encrypted=True, most=10)
    assert denied.value.reason is Reason.BAD_SVID


def test_a_hello_has_so_many_extensions_and_key_shares_and_no_more() -> None:
    def padded(count: int) -> bytes:
        return client_hello(X25519, before=(number(1) + vector(2, b"")) * (count - 1))

    assert not offers_finite_field(CLIENT_HELLO, padded(MAX_HELLO_EXTENSIONS - 1))
    assert not offers_finite_field(CLIENT_HELLO, client_hello(*[X25519] * MAX_KEY_SHARES))
    for beyond in (padded(MAX_HELLO_EXTENSIONS + 1), client_hello(*[X25519] * (MAX_KEY_SHARES + 1))):
        with pytest.raises(Denied, match="hello of more than") as denied:
            offers_finite_field(CLIENT_HELLO, beyond)
        assert denied.value.reason is Reason.TLS_VERSION


def test_the_largest_hello_is_read_in_few_steps() -> None:
    crowded = client_hello(*[X25519] * 3200)
    assert len(crowded) > 16000
    assert bytecodes(lambda: offers_finite_field(CLIENT_HELLO, crowded), Denied) < MOST_AT_ONCE / 10


# Messages of a shape that was seen before.


def test_a_hello_of_a_known_shape_is_judged_in_few_steps() -> None:
    first, second = client_hello(X25519), b"\3\3" + bytes(range(32)) + client_hello(X25519)[34:-1] + b"K"
    assert not offers_finite_field(CLIENT_HELLO, first)
    assert bytecodes(lambda: offers_finite_field(CLIENT_HELLO, b"\0\0" + second[2:])) < 100
    assert bytecodes(lambda: offers_finite_field(CLIENT_HELLO, second)) > 100  # of another version


def test_another_group_in_a_hello_of_a_known_size_is_seen() -> None:
    for _ in range(2):
        assert not offers_finite_field(CLIENT_HELLO, client_hello(X25519, MLKEM))
        assert offers_finite_field(CLIENT_HELLO, client_hello(X25519, FFDHE8192))
        assert offers_finite_field(CLIENT_HELLO, client_hello(FFDHE8192, X25519))


def test_certificates_of_a_known_shape_are_cut_in_few_steps() -> None:
    def read(*chain: bytes) -> tuple[bytes, ...]:
        return certificates_in(certificates(*chain), encrypted=True, most=10)

    assert read(b"leaf", b"middle") == (b"leaf", b"middle")
    assert read(b"LEAF", b"MIDDLE") == (b"LEAF", b"MIDDLE")
    assert read(b"middle", b"leaf") == (b"middle", b"leaf")  # the same size
    body = certificates(b"middle", b"leaf")
    assert bytecodes(lambda: certificates_in(body, encrypted=True, most=10)) < 100
    assert certificates_in(body, encrypted=True, most=1) == (b"middle", b"leaf")  # one too many


# The fast readers find what slow ones find, whatever an attacker changes.


def outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except Denied as denied:
        return denied.reason


@st.composite
def changed(draw: st.DrawFn, bodies: list[bytes]) -> bytes:
    """Return one of the bodies with some bytes set to others, cut or with more behind it."""
    body = bytearray(draw(st.sampled_from(bodies)))
    for _ in range(draw(st.integers(0, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.sampled_from([0, 1, 2, 3, 4, 51, 255]))
    if draw(st.booleans()):
        del body[draw(st.integers(0, len(body))) :]
    return bytes(body) + draw(st.binary(max_size=6))


_CLIENT_HELLOS = [
    *(body for kind, body, _ in HELLOS.values() if kind == CLIENT_HELLO),
    client_hello(*range(29, 29 + MAX_KEY_SHARES)),
    client_hello(*range(29, 30 + MAX_KEY_SHARES)),
    client_hello(X25519, before=(number(0) + vector(2, b"")) * (MAX_HELLO_EXTENSIONS - 1)),
    client_hello(X25519, before=(number(0) + vector(2, b"")) * MAX_HELLO_EXTENSIONS),
]
_SERVER_HELLOS = [body for kind, body, _ in HELLOS.values() if kind == SERVER_HELLO]


@settings(max_examples=600, deadline=None)
@given(kind=st.sampled_from([CLIENT_HELLO, SERVER_HELLO]), data=st.data())
def test_a_changed_hello_is_read_as_a_slow_reader_reads_it(kind: int, data: st.DataObject) -> None:
    body = data.draw(changed(_CLIENT_HELLOS if kind == CLIENT_HELLO else _SERVER_HELLOS))
    refused = (True, Reason.TLS_VERSION)
    fast = outcome(lambda: offers_finite_field(kind, body)) in refused
    assert fast == (outcome(lambda: slow_reader.offers_finite_field(kind, body)) in refused)


@settings(max_examples=600, deadline=None)
@given(encrypted=st.booleans(), most=st.integers(0, 3), data=st.data())
def test_a_changed_list_of_certificates_is_read_as_a_slow_reader_reads_it(
    encrypted: bool, most: int, data: st.DataObject
) -> None:
    lists = [certificates(*chain, encrypted=encrypted) for chain in ((), (b"one",), (b"one", b"", b"three" * 60))]
    body = data.draw(changed(lists))
    fast = outcome(lambda: certificates_in(body, encrypted=encrypted, most=most))
    assert fast == outcome(lambda: slow_reader.certificates_in(body, encrypted=encrypted, most=most))
