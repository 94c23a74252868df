from __future__ import annotations

import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.update import UpdateError, WithdrawnError, choose, reuse_or_parse
from tests.identity.shapes import authority

A = TrustDomain("a.test")
ONE, TWO = SpiffeId("spiffe://a.test/one"), SpiffeId("spiffe://a.test/two")
GONE = SpiffeId("spiffe://a.test/gone")
ROOT_A, ROOT_B = authority("root a"), authority("root b")

# SVIDs as (SPIFFE ID, hint), the settings, and the index of our SVID
CHOSEN: dict[str, tuple[list[tuple[str, str]], SpiffeId | None, str | None, int]] = {
    "the only one": ([(ONE, "")], None, None, 0),
    "the only one, whatever its hint": ([(ONE, "x")], None, None, 0),
    "by SPIFFE ID": ([(ONE, ""), (TWO, "")], TWO, None, 1),
    "by hint": ([(ONE, "x"), (TWO, "y")], None, "y", 1),
    "by both": ([(ONE, "x"), (TWO, "x"), (TWO, "y")], TWO, "y", 2),
    "one SPIFFE ID twice": ([(ONE, "x"), (ONE, "y")], None, None, 0),
    "one SPIFFE ID twice, by SPIFFE ID": ([(TWO, ""), (ONE, "x"), (ONE, "y")], ONE, None, 1),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_an_svid_is_chosen_by_spiffe_id_and_hint(case: str) -> None:
    names, spiffe_id, hint, number = CHOSEN[case]
    assert choose(names, spiffe_id=spiffe_id, hint=hint, held=None) == number


AMBIGUOUS: dict[str, tuple[list[tuple[str, str]], str | None]] = {
    "nobody says": ([(ONE, ""), (TWO, "")], None),
    "hints that nobody asked for": ([(ONE, "x"), (TWO, "y")], None),
    "one hint twice": ([(ONE, "x"), (TWO, "x")], "x"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
@pytest.mark.parametrize("held", [None, ONE, TWO])
def test_several_that_could_be_ours_are_none(case: str, held: SpiffeId | None) -> None:
    names, hint = AMBIGUOUS[case]
    with pytest.raises(UpdateError, match=r"set identity\.spiffe_id"):
        choose(names, spiffe_id=None, hint=hint, held=held)


def test_the_one_in_use_was_withdrawn_if_it_is_not_among_several() -> None:
    with pytest.raises(WithdrawnError):
        choose([(ONE, ""), (TWO, "")], spiffe_id=None, hint=None, held=GONE)


@pytest.mark.parametrize(("spiffe_id", "hint"), [(TWO, None), (None, "y"), (ONE, "y")])
def test_the_configured_one_was_withdrawn_if_it_is_not_there(spiffe_id: SpiffeId | None, hint: str | None) -> None:
    with pytest.raises(WithdrawnError):
        choose([(ONE, "x")], spiffe_id=spiffe_id, hint=hint, held=ONE)


def test_no_svid_at_all_is_no_update() -> None:
    with pytest.raises(UpdateError, match="no SVID"):
        choose([], spiffe_id=ONE, hint=None, held=ONE)


def test_a_bundle_of_the_same_bytes_is_the_same_object() -> None:
    bundle = reuse_or_parse(A, ROOT_A.der, {})
    assert reuse_or_parse(A, ROOT_A.der, {A: bundle}) is bundle
    assert reuse_or_parse(A, ROOT_B.der, {A: bundle}) is not bundle
