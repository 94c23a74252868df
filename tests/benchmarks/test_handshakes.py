from pathlib import Path

import pytest
from cryptography import x509

from benchmarks.handshakes import CASES, told
from benchmarks.sample import Sample
from benchmarks.world import AGENT, CALLER, leaves, make_world, write_chained_identity
from tests.benchmarks.samples import sample

FIRST = CASES[0]


def rounds(base: float, own: float) -> list[Sample]:
    columns = (("HAProxy", base), ("delegation sidecar", own))
    return [
        sample(cost + number, peer=title, scenario=FIRST.name, number=number, connects=1000, resumed=0)
        for title, cost in columns
        for number in range(2)
    ]


def test_a_case_tells_the_ratio_and_the_difference_in_the_same_round() -> None:
    page = told([FIRST], rounds(1000, 1100), {"cpu": "any"})
    assert "| delegation sidecar | 1,000 | 1,100 | 1.10 (1.10 to 1.10) | 100 (100 to 100) | 0% |" in page


def test_no_ratio_where_haproxy_spreads_too_wide() -> None:
    samples = [*rounds(1000, 1100), sample(3000, peer="HAProxy", scenario=FIRST.name, number=2)]
    assert "none: the base itself spreads" in told([FIRST], samples, {})


def test_each_case_changes_the_scenario_of_the_report_under_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.scenario.fresh_connections and case.scenario.name == case.name for case in CASES)


def test_a_chained_identity_verifies_by_its_intermediate_and_not_without(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    folder = tmp_path / "chain"
    folder.mkdir()
    files = write_chained_identity(world.authority, AGENT, folder)
    chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
    assert len(chain) == 2
    assert chain[0].issuer == chain[1].subject
    chain[0].verify_directly_issued_by(chain[1])
    chain[1].verify_directly_issued_by(world.authority.current.certificate)
    with pytest.raises(ValueError, match="Issuer"):
        chain[0].verify_directly_issued_by(world.authority.current.certificate)


def test_leaves_are_different_certificates_of_one_key(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    made = x509.load_pem_x509_certificates(leaves(world, CALLER, 3).read_bytes())
    assert len({one.serial_number for one in made}) == 3
    assert all(one.public_key() == made[0].public_key() for one in made)
