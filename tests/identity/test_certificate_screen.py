from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.identity import certificate_screen
from sidecar.identity.bounds import MAX_CHAIN_BYTES
from sidecar.identity.certificate_screen import MAX_MESSAGE_BYTES, MAX_RECORDS, Screen
from sidecar.identity.records import MAX_RECORD_BYTES, Opener
from tests.identity.sealing import SUITES, Sealer
from tests.identity.test_records import FFDHE8192, RETRY, X25519, certificates, client_hello, server_hello, vector

SUITE, SECRET = SUITES[0], bytes(48)
CCS = b"\x14\3\3\0\1\1"


def clear(kind: int, content: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(content).to_bytes(2, "big") + content


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(3, body)


HELLO = clear(22, message(1, client_hello(X25519)))
SERVER_HELLO = clear(22, message(2, server_hello(X25519)))
CHAIN = (b"leaf", b"middle")
CERTIFICATE = message(11, certificates(*CHAIN))


@dataclass
class Judged:
    """Records the judged certificates; ``refused`` is the judge's answer."""

    seen: list[tuple[bytes, ...]] = field(default_factory=list)
    refused: bool = False

    def __call__(self, chain: tuple[bytes, ...]) -> None:
        self.seen.append(chain)
        if self.refused:
            raise Denied(Reason.UNTRUSTED_CHAIN, "judged")


def keyed(judge: Judged) -> tuple[Screen, Sealer]:
    """Return a screen after the hello."""
    screen = Screen(judge)
    assert screen.take(HELLO) == HELLO
    screen.open_with(Opener(SUITE, SECRET))
    return screen, Sealer(SUITE, SECRET)


def refusal_of(screen: Screen, received: bytes) -> Denied:
    with pytest.raises(Denied) as denied:
        screen.take(received)
    return denied.value


def test_after_the_certificates_were_judged_everything_is_let_through() -> None:
    judge = Judged()
    screen, sealer = keyed(judge)
    flight = CCS + sealer.seal(22, CERTIFICATE) + sealer.seal(22, message(15, b"sig")) + b"anything"
    assert screen.take(flight) == flight
    assert judge.seen == [CHAIN]
    assert screen.certificates == CHAIN
    assert screen.over
    assert screen.take(b"more") == b"more"


def test_certificates_that_are_refused_are_never_let_through() -> None:
    judge = Judged(refused=True)
    screen, sealer = keyed(judge)
    refused = refusal_of(screen, CCS + sealer.seal(22, CERTIFICATE))
    assert refused.detail == "judged"
    assert not screen.over


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(min_value=1, max_value=40), max_size=30), pieces=st.integers(min_value=1, max_value=9))
def test_however_it_is_cut_the_same_is_judged_and_let_through(cuts: list[int], pieces: int) -> None:
    judge = Judged()
    screen, sealer = keyed(judge)
    step = -(-len(CERTIFICATE) // pieces)
    flight = CCS
    for at in range(0, len(CERTIFICATE), step):
        flight += sealer.seal(22, CERTIFICATE[at : at + step])
    flight += sealer.seal(22, message(20, b"finished"))
    released, rest = b"", flight
    for cut in [*cuts, len(flight)]:
        released += screen.take(rest[:cut])
        rest = rest[cut:]
        assert judge.seen or released in (b"", CCS)
    assert released == flight
    assert judge.seen == [CHAIN]


def test_a_client_sees_the_servers_hello_first_and_then_waits_for_the_key() -> None:
    judge = Judged()
    screen, sealer = Screen(judge), Sealer(SUITE, SECRET)
    encrypted = sealer.seal(22, message(8, b"\0\0") + CERTIFICATE)
    assert screen.take(SERVER_HELLO + CCS + encrypted) == SERVER_HELLO + CCS
    assert screen.wants_key
    assert screen.take(b"") == b""
    screen.open_with(Opener(SUITE, SECRET))
    assert screen.take(b"") == encrypted
    assert judge.seen == [CHAIN]


def test_certificates_in_clear_are_judged_as_well() -> None:
    judge = Judged()
    flight = clear(22, message(2, server_hello(None)) + message(11, certificates(*CHAIN, encrypted=False)))
    assert Screen(judge).take(flight) == flight
    assert judge.seen == [CHAIN]


def test_a_peer_that_sends_no_certificate_is_left_to_openssl() -> None:
    judge = Judged()
    screen, sealer = keyed(judge)
    flight = sealer.seal(22, message(11, certificates()))
    assert screen.take(flight) == flight
    assert judge.seen == []


def test_where_no_certificates_are_asked_for_only_the_hello_is_looked_at() -> None:
    screen = Screen(None)
    assert screen.take(HELLO) == HELLO
    assert screen.take(b"\x17\3\3\0\1x") == b"\x17\3\3\0\1x"
    assert screen.over
    assert "ffdhe" in refusal_of(Screen(None), clear(22, message(1, client_hello(FFDHE8192)))).detail


def sealed(*contents: tuple[int, bytes], padding: int = 0) -> bytes:
    sealer = Sealer(SUITE, SECRET)
    return b"".join(sealer.seal(kind, content, padding=padding) for kind, content in contents)


LONG = bytes([11]) + MAX_CHAIN_BYTES.to_bytes(3, "big") + bytes(16000)
ODD: dict[str, tuple[bytes, Reason, str]] = {
    "no TLS": (b"GET / HTTP/1.1\r\n", Reason.TLS_VERSION, "speak TLS"),
    "another protocol's version": (b"\x16\2", Reason.TLS_VERSION, "speak TLS"),
    "a record below all kinds": (b"\x13\3\3\0\1x", Reason.TLS_VERSION, "speak TLS"),
    "a record above all kinds": (b"\x18\3\3\0\1x", Reason.TLS_VERSION, "speak TLS"),
    "an empty record": (b"\x14\3\3\0\0", Reason.TLS_VERSION, "length"),
    "a record of 16641 bytes": (b"\x17\3\3\x41\1", Reason.TLS_VERSION, "length"),
    "not sealed": (b"\x17\3\3\0\x20" + bytes(32), Reason.TLS_VERSION, "decrypted"),
    "a handshake message in clear": (clear(22, CERTIFICATE), Reason.TLS_VERSION, "not encrypted"),
    "an empty handshake record": (sealed((22, b"")), Reason.TLS_VERSION, "empty"),
    "interrupted": (sealed((22, CERTIFICATE[:9]), (23, b"data")), Reason.TLS_VERSION, "is interrupted"),
    "compressed": (sealed((22, message(25, b"\0\1"))), Reason.UNTRUSTED_CHAIN, "compressed"),
    "a chain of a megabyte": (sealed((22, b"\x0b\x10\0\0")), Reason.UNTRUSTED_CHAIN, "too large"),
    "another message of a megabyte": (sealed((22, b"\x0d\x10\0\0")), Reason.TLS_VERSION, "too large"),
    "another message of 16385 bytes": (sealed((22, b"\x0d\0\x40\1")), Reason.TLS_VERSION, "too large"),
    "a list that is none": (sealed((22, message(11, b"\0\0\0\5x"))), Reason.BAD_SVID, "cannot be read"),
    "padded": (sealed((22, LONG[:5]), *[(22, b"x")] * 6, padding=16000), Reason.TLS_VERSION, "padded"),
    "in single bytes": (sealed(*[(22, LONG[at : at + 1]) for at in range(200)]), Reason.TLS_VERSION, "many records"),
    "after many alerts": (sealed(*[(21, b"\1\x5a")] * 200), Reason.TLS_VERSION, "many records"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_openssl_should_never_see_is_refused(case: str) -> None:
    received, reason, detail = ODD[case]
    judge = Judged()
    refused = refusal_of(keyed(judge)[0], received)
    assert refused.reason is reason
    assert detail in refused.detail
    assert judge.seen == []


def test_as_many_records_as_may_be_are_read() -> None:
    screen, sealer = keyed(Judged())
    alerts = b"".join(sealer.seal(21, b"\1\x5a") for _ in range(MAX_RECORDS - 2))  # the hello was one
    flight = alerts + sealer.seal(22, CERTIFICATE)
    assert screen.take(flight) == flight


def test_one_more_record_is_one_too_many() -> None:
    screen, sealer = keyed(Judged())
    alerts = b"".join(sealer.seal(21, b"\1\x5a") for _ in range(MAX_RECORDS - 1))
    assert screen.take(alerts) == alerts
    assert "many records" in refusal_of(screen, sealer.seal(22, CERTIFICATE)).detail


def test_the_padding_of_an_incomplete_message_is_bounded_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    part = sealed((22, CERTIFICATE[:5]), padding=100)
    monkeypatch.setattr(certificate_screen, "_MAX_HELD", len(part))
    assert keyed(Judged())[0].take(part) == b""
    monkeypatch.setattr(certificate_screen, "_MAX_HELD", len(part) - 1)
    assert "padded" in refusal_of(keyed(Judged())[0], part).detail


def test_what_waits_for_its_key_is_not_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_screen, "_MAX_HELD", 1)
    screen = Screen(Judged())
    assert screen.take(SERVER_HELLO + sealed((22, CERTIFICATE))) == SERVER_HELLO
    assert screen.wants_key


LONGEST = {  # kind of message, its longest body, and the reason for a longer one
    "certificates": (11, MAX_CHAIN_BYTES + 4096, Reason.UNTRUSTED_CHAIN),
    "another message": (13, MAX_MESSAGE_BYTES, Reason.TLS_VERSION),
}


@pytest.mark.parametrize("case", LONGEST)
def test_a_message_of_the_longest_body_is_awaited_and_a_longer_one_is_refused(case: str) -> None:
    kind, most, reason = LONGEST[case]
    assert keyed(Judged())[0].take(sealed((22, bytes([kind]) + most.to_bytes(3, "big")))) == b""
    refused = refusal_of(keyed(Judged())[0], sealed((22, bytes([kind]) + (most + 1).to_bytes(3, "big"))))
    assert (refused.reason, "too large" in refused.detail) == (reason, True)


def test_a_record_of_the_most_bytes_is_awaited() -> None:
    assert keyed(Judged())[0].take(b"\x17\3\3" + MAX_RECORD_BYTES.to_bytes(2, "big")) == b""


def test_certificates_are_judged_with_their_last_byte() -> None:
    judge = Judged()
    screen, sealer = keyed(judge)
    first = sealer.seal(22, CERTIFICATE[:-1])
    assert screen.take(first) == b""
    assert judge.seen == []
    last = sealer.seal(22, CERTIFICATE[-1:])
    assert screen.take(last) == first + last
    assert judge.seen == [CHAIN]


def test_an_alert_may_come_between_the_parts_of_a_message() -> None:
    judge = Judged()
    flight = sealed((22, CERTIFICATE[:9]), (21, b"\1\x5a"), (22, CERTIFICATE[9:]))
    assert keyed(judge)[0].take(flight) == flight
    assert judge.seen == [CHAIN]


def test_what_follows_the_certificates_in_their_record_is_left_to_openssl() -> None:
    judge = Judged()
    flight = sealed((22, CERTIFICATE + b"\x0d\x10\0\0"))
    assert keyed(judge)[0].take(flight) == flight
    assert judge.seen == [CHAIN]


def test_certificates_that_nobody_asked_for_are_left_to_openssl() -> None:
    flight = clear(22, message(11, certificates(*CHAIN, encrypted=False)))
    assert Screen(None).take(flight) == flight


@pytest.mark.parametrize("hello", [message(1, client_hello(X25519, FFDHE8192)), message(2, RETRY)])
def test_a_key_share_of_a_finite_field_is_never_let_through(hello: bytes) -> None:
    screen = Screen(Judged())
    assert screen.take(clear(22, hello[:20])) == b""
    refused = refusal_of(screen, clear(22, hello[20:]))
    assert refused.reason is Reason.TLS_VERSION
    assert "ffdhe" in refused.detail
