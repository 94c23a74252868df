from __future__ import annotations

import pytest

from delegation_core.crossing import Crossing, collide, makes_workloads

PARTNERS = "https://sts.partner.example"


def crossing(subject_prefix: str = "partner:", issuer: str = PARTNERS) -> Crossing:
    scopes = {"docs.read": frozenset({"crm.read"}), "docs.all": frozenset({"crm.read", "crm.write"})}
    return Crossing(issuer=issuer, subject_prefix=subject_prefix, scopes=scopes)


def test_scopes_are_worth_what_the_map_says_and_nothing_by_their_name() -> None:
    assert crossing().worth(frozenset({"docs.read", "docs.all"})) == {"crm.read", "crm.write"}
    assert crossing().worth(frozenset({"docs.read", "crm.write"})) == {"crm.read"}
    assert crossing().worth(frozenset()) == frozenset()


def test_a_subject_gets_the_prefix() -> None:
    assert crossing().subject("alice") == "partner:alice"


@pytest.mark.parametrize("prefix", ["", "spiffe:", "spiffe://partner.example/", "SPIFFE:", "s", "Spiff"])
def test_a_prefix_that_distinguishes_nobody_or_names_workloads_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        crossing(prefix)


def test_a_crossing_names_its_issuer() -> None:
    with pytest.raises(ValueError, match="issuer"):
        crossing(issuer="")


@pytest.mark.parametrize(
    ("prefixes", "colliding"),
    [
        pytest.param(["acme:", "partner:"], False, id="different"),
        pytest.param(["", "partner:"], True, id="none, and one"),
        pytest.param(["part", "partner:"], True, id="the start of the other"),
        pytest.param(["partner:", "part"], True, id="the other way round"),
        pytest.param(["partner:", "partner:"], True, id="alike"),
        pytest.param(["partner:"], False, id="one alone"),
        pytest.param([""], False, id="none at all"),
    ],
)
def test_prefixes_collide_if_two_subjects_could_become_one(prefixes: list[str], colliding: bool) -> None:
    assert collide(prefixes) is colliding


def test_no_prefix_makes_no_workload() -> None:
    assert not makes_workloads("")
    assert not makes_workloads("idp|")
    assert makes_workloads("spi")
