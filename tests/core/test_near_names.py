"""A hint names the known name that a misspelled one may stand for."""

from __future__ import annotations

import pytest

from delegation_core.near_names import nearest_name, reads_like

NAME = "https://login.acme.example"


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        pytest.param(NAME, True, id="itself"),
        pytest.param(NAME + "/", True, id="a slash at its end"),
        pytest.param(NAME.upper(), True, id="another case"),
        pytest.param(NAME.replace("o", "%6F"), True, id="percent-encoding"),
        pytest.param(NAME.replace("l", "\uff4c"), True, id="another Unicode form"),
        pytest.param(NAME.replace("ex", "xe"), True, id="a swapped pair"),
        pytest.param(NAME.replace("ex", "XE") + "/", True, id="a swapped pair, case and a slash"),
        pytest.param(NAME.replace("ex", "xe").replace("lo", "ol"), False, id="two swapped pairs"),
        pytest.param(NAME.replace("exa", "axe"), False, id="two swapped characters that are no neighbours"),
        pytest.param(NAME.replace("ex", "ix"), False, id="another letter"),
        pytest.param(NAME.replace("ex", "iy"), False, id="two other letters"),
        pytest.param(NAME.replace("ex", "e"), False, id="a letter too few"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_names_read_alike_or_not(other: str, *, alike: bool) -> None:
    assert reads_like(NAME, other) is alike
    assert reads_like(other, NAME) is alike


def test_swapped_digits_make_another_name() -> None:
    assert not reads_like("worker-12", "worker-21")
    assert not reads_like("worker-a1", "worker-1a")
    assert reads_like("worker-ab", "worker-ba")


def test_the_nearest_name_reads_alike_or_is_close() -> None:
    known = {"acme.example", "partner.example", "amce.example"}
    assert nearest_name("acme.example", known) == "acme.example", "the first by name, of two that read alike"
    assert nearest_name("ACME.example/", {"acme.example", "acm.example"}) == "acme.example"
    assert nearest_name("acm.example", {"acme.example", "partner.example"}) == "acme.example"
    assert nearest_name("urn:x", known) is None
    assert nearest_name("acme.example", ()) is None
