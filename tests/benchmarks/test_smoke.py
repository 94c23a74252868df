from dataclasses import replace
from typing import Any

import pytest

from benchmarks.axes import ALL
from benchmarks.smoke import MAX_RATIO, SMOKE, Verdict, judged, needed
from tests.benchmarks.samples import results, sample

LIMIT = MAX_RATIO["inbound", "haproxy"]
WHAT = "inbound, CPU relative to haproxy"


def verdict(*, ratio: float, **seen: Any) -> dict[str, Verdict]:
    rows = [sample(10.0, peer="haproxy", number=n) for n in (0, 1)]
    rows += [sample(10.0 * ratio, number=n, **seen) for n in (0, 1)]
    return {one.what: one for one in judged(results(*rows))}


def test_a_ratio_below_its_limit_is_kept() -> None:
    assert verdict(ratio=LIMIT - 0.1)[WHAT].kept


def test_a_ratio_above_its_limit_is_broken() -> None:
    found = verdict(ratio=LIMIT + 0.1)[WHAT]
    assert not found.kept
    assert str(found).startswith("BROKEN")


def test_what_was_not_measured_keeps_nothing() -> None:
    assert not verdict(ratio=1.0)["outbound, CPU relative to haproxy"].kept


def test_one_wrong_answer_breaks_the_run() -> None:
    assert verdict(ratio=1.0)["inbound, answers not as expected"].kept
    assert not verdict(ratio=1.0, statuses={"200": 999, "503": 1})["inbound, answers not as expected"].kept


def test_a_connection_may_cost_so_much_memory() -> None:
    rest, held = sample(1.0, scenario="memory-0"), sample(1.0, scenario="memory-1000")
    light = {one.what: one.kept for one in judged(results(rest, replace(held, rss_mib=110.0)))}
    heavy = {one.what: one.kept for one in judged(results(rest, replace(held, rss_mib=160.0)))}
    assert (light["each idle connection, KiB"], heavy["each idle connection, KiB"]) == (True, False)


@pytest.mark.parametrize("name", SMOKE)
def test_each_of_the_short_run_is_a_scenario(name: str) -> None:
    assert name in {scenario.name for scenario in ALL}


def test_a_peer_is_measured_where_a_limit_compares_with_it_and_nowhere_else() -> None:
    assert {name for name in SMOKE if needed(name, "aiohttp")} == {"inbound"}
    assert all(needed(name, peer) for name in SMOKE for peer in ("sidecar", "haproxy"))
