from __future__ import annotations

from typing import Any

import pytest

from sidecar.proxy.listening.status_merge import MAX_CHAINS, merge_chains, merge_status, missing_of
from sidecar.status.troubles import troubles
from tests.status.documents import FAILS, ISSUER, NOW, WORKS, status

UPSTREAM = {"direction": "outbound", "address": "a:1", "at": NOW, "reason": "upstream_timeout", "detail": ""}


def together(*rows: dict[str, Any] | None, stopping: bool = False) -> dict[str, Any]:
    return merge_status(dict(enumerate(rows)), since=NOW - 9000, now=NOW, restarts=2, stopping=stopping)


def test_workers_that_are_well_are_one_sidecar_that_is_well() -> None:
    found = together(status(), status(("run", "s"), ("requests.being_served", 3)))
    assert (found["ready"], found["missing"], found["stopping"]) == (True, [], False)
    assert [one.what for one in troubles(found)] == ["workers"]
    assert troubles(merge_status({0: status(), 1: status()}, since=0, now=NOW, restarts=0, stopping=False)) == []
    assert found["requests"] == {"being_served": 3, "handles": 0}
    assert together(status(("streams.inbound", 2)), status(("streams.inbound", 1)))["streams"]["inbound"] == 3
    assert found["listeners"] == [
        {"direction": "inbound", "address": "0.0.0.0:7443", "connections": 2, "max_connections": 200}
    ]
    assert [(row["worker"], row["run"], row["being_served"]) for row in found["workers"]] == [(0, "r", 0), (1, "s", 3)]
    assert found["restarts"] == 2


def test_each_worker_tells_the_deny_file_that_it_has_in_force() -> None:
    found = together(status(("deny_file.sha256", "a" * 64)), status(("deny_file", None)), None)
    assert [row["deny_sha256"] for row in found["workers"]] == ["a" * 64, None, None]


def test_workers_that_are_well_have_every_key_of_a_single_one() -> None:
    found = together(status(), status(("run", "s")))
    assert found.keys() - {"workers", "restarts"} == status().keys() - {"pid"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("identity.state", "denied"), "identity"),
        (("identity.last_error", "no"), "identity"),
        (("identity.missing_trust_domains", ["b.example"]), "trust domains"),
        (("issuers", [{"issuer": ISSUER, "needed": True, "key_age_s": None, "last_error": None}]), f"keys of {ISSUER}"),
        (("issuers", [{"issuer": ISSUER, "needed": True, "key_age_s": 1, "last_error": "x"}]), f"keys of {ISSUER}"),
        (("revocations.0.stale", True), f"revocations of {ISSUER}"),
        (("revocations.0.last_error", "x"), f"revocations of {ISSUER}"),
        (("deny_file.error", "x"), "deny file"),
        (("deny_file.age_s", 60), "deny file"),
        (("deny_unmatched", [{"row": "actor x", "wrong": "w", "fix": "f"}]), "deny list, actor x"),
        (("records.trouble", "the record sink is blocked"), "records"),
        (("records.lost", 1), "records"),
        (("memory", {"used_bytes": 9, "limit_bytes": 10, "short": True}), "memory"),
        (("settings.refused_at", NOW), "settings: x"),
        (("agent.up", False), "agent"),
        (("upstreams", [UPSTREAM]), "next hop a:1"),
        (("refused_lately", {"overloaded": 1}), "overloaded"),
        (("exchanges.0.last_refusal", {"at": NOW, "reason": "sts_timeout", "detail": ""}), "token service"),
        (("exchanges.0.endpoints", [WORKS, FAILS]), "token service, replica"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_trouble_of_one_is_told(change: tuple[str, Any], what: str, first: bool) -> None:
    problems = ("settings.problems", [{"field": "x", "wrong": "w", "fix": "c"}])
    changes = [change, problems] if change[0] == "settings.refused_at" else [change]
    if change == ("identity.state", "denied"):
        changes.append(("identity.not_after", None))
    bad = status(*changes)
    found = together(bad, status()) if first else together(status(), bad)
    assert [one.what for one in troubles(found)] == (["workers", what] if what == "overloaded" else [what, "workers"])


def test_one_that_gives_no_answer_is_not_ready() -> None:
    found = together(status(), None)
    assert (found["ready"], found["missing"]) == (False, ["worker 1: does not answer"])
    assert found["workers"][1]["ready"] is False


def test_one_that_is_not_ready_is_named_and_what_all_lack_is_said_once() -> None:
    assert missing_of({0: ["identity", "keys"], 1: ["identity"]}) == ["identity", "worker 0: keys"]
    assert missing_of({0: None, 1: None}) == ["does not answer"]
    assert missing_of({0: [], 1: []}) == []


def test_what_stops_is_not_ready() -> None:
    assert (together(status(), stopping=True)["ready"], together(status(), stopping=True)["stopping"]) == (False, True)


def test_refusals_are_added_up_the_most_frequent_first() -> None:
    found = together(status(("refused", {"no_token": 3, "no_route": 2})), status(("refused", {"no_route": 2})))
    assert list(found["refused"].items()) == [("no_route", 4), ("no_token", 3)]


def test_the_requests_of_all_are_shown_the_longest_first_and_not_without_limit() -> None:
    def chains(*since: int) -> dict[str, Any]:
        return {"being_served": len(since), "chains": [{"since": one} for one in since]}

    found = merge_chains([chains(5, 7), chains(6)])
    assert found == {"being_served": 3, "chains": [{"since": 5}, {"since": 6}, {"since": 7}]}
    assert len(merge_chains([chains(*range(MAX_CHAINS)), chains(1)])["chains"]) == MAX_CHAINS
