"""The fuzzers' own tools: a property that never fails would prove nothing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeIdError
from tests.fuzz import inputs, of_heads
from tests.fuzz.inputs import add_regression, read_inputs, unpack, write_corpus
from tests.fuzz.mutate import Mutator
from tests.fuzz.properties import is_ours, pieces, printable, quiet
from tests.fuzz.reduce import reduced


@pytest.mark.parametrize(
    "error",
    [
        Denied(Reason.BAD_REQUEST, "there is not exactly one Host"),
        Denied(Reason.ACT_TOO_DEEP, "more than 8 actors"),
        Denied(Reason.NO_ROUTE),
        SpiffeIdError("a SPIFFE ID starts with spiffe://"),
    ],
)
def test_our_own_words_are_quiet(error: Exception) -> None:
    quiet(error)


@pytest.mark.parametrize(
    "detail", ["invalid literal for int(): 'secret'", "Bearer eyJ", "more than secret-4711 actors"]
)
def test_a_quotation_is_not(detail: str) -> None:
    assert not is_ours(detail)
    with pytest.raises(AssertionError):
        quiet(Denied(Reason.BAD_REQUEST, detail))


def test_text_that_acts_is_told_from_text_that_shows() -> None:
    printable("é")
    with pytest.raises(AssertionError):
        printable("\u202e")


def test_pieces_make_up_the_whole_and_are_always_the_same() -> None:
    for data in (b"", b"a", b"GET / HTTP/1.1\r\n\r\n" * 20):
        assert b"".join(pieces(data)) == data
        assert pieces(data) == pieces(data)
        assert all(pieces(data))


def test_a_mutator_gives_the_same_inputs_for_the_same_seed_and_no_long_ones() -> None:
    first, again, other = (
        list(islice(Mutator([b"a: 1\r\nb: 2\r\n"], [b"word"], seed=seed, max_len=50), 300)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 200
    assert max(map(len, first)) <= 50


def test_inputs_are_kept_as_text_and_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEEDS", "CORPUS", "REGRESSIONS"):
        monkeypatch.setattr(inputs, name, tmp_path / name)
        (tmp_path / name).mkdir()
    data = [b"", b"'\"\\\n\r\0\xff#", b"plain"]
    write_corpus("one", data)
    assert sorted(inputs.known_inputs("one")) == sorted(data)
    assert add_regression("one", b"\xff", "a \u202e bug\nin two lines")
    assert not add_regression("one", b"\xff", "again")
    assert read_inputs(tmp_path / "REGRESSIONS" / "one.txt") == [b"\xff"]
    unpack(data, tmp_path / "files")
    assert sorted(path.read_bytes() for path in (tmp_path / "files").iterdir()) == sorted(data)


def test_a_corpus_is_reduced_to_what_leads_somewhere_new() -> None:
    inputs = [b"GET /%41 HTTP/1.1", b"/b", b"/bb", b"/a", b"/%41", b"/%41%42"]
    assert reduced(of_heads.target, inputs) == [b"/a", b"/%41", b"GET /%41 HTTP/1.1"]
    assert reduced(of_heads.target, inputs, known=[b"/x", b"/%42"]) == [b"GET /%41 HTTP/1.1"]
