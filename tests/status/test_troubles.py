import pytest

from delegation_core.errors import Reason
from sidecar.identity.source import State
from sidecar.status.troubles import span, troubles
from tests.status.documents import FAILS, ISSUER, NOW, WORKS, status

PROBLEM = {"field": "drian_s", "wrong": "is not a setting", "fix": "write drain_s"}
OLDER = {"field": "drian_s", "wrong": "is not a setting", "cure": "write drain_s"}  # an earlier process says so


def upstream(direction: str, reason: str, detail: str) -> dict[str, object]:
    return {"direction": direction, "address": "10.0.0.7:7443", "at": NOW - 5, "reason": reason, "detail": detail}


def test_of_a_sidecar_that_is_well_there_is_nothing_to_say() -> None:
    assert troubles(status()) == []


@pytest.mark.parametrize(
    ("changes", "grade", "what", "wrong", "fix"),
    [
        pytest.param([("stopping", True)], "wrong", "stopping", "told to stop", "start it again", id="stopping"),
        pytest.param(
            [("identity.state", "starting"), ("identity.last_error", "no socket")],
            "wrong",
            "identity",
            "arrived yet (no socket)",
            "SPIRE agent runs",
            id="no-workload-api",
        ),
        pytest.param(
            [("identity.state", "denied")], "wrong", "identity", "no registration entry", "create", id="denied"
        ),
        pytest.param(
            [("identity.state", "expired")], "wrong", "identity", "has expired", "renews nothing", id="expired"
        ),
        pytest.param(
            [("identity.state", "stale")],
            "note",
            "identity",
            "until it expires, in 1 h",
            "before then",
            id="agent-gone",
        ),
        pytest.param(
            [("identity.last_error", "the key is of another certificate")],
            "note",
            "identity",
            "cannot be used: the key",
            "fix",
            id="malformed-update",
        ),
        pytest.param(
            [("identity.not_after", NOW + 599)], "note", "identity", "ends in 9 min 59 s", "renews", id="svid-ends-soon"
        ),
        pytest.param(
            [("identity.not_before", NOW + 3590)],
            "wrong",
            "clock",
            "is valid only in 59 min 50 s: this machine's clock is slow",
            "clock right",
            id="clock-slow",
        ),
        pytest.param(
            [("identity.state", "starting"), ("identity.last_error", "our own SVID is early, by this machine's clock")],
            "wrong",
            "clock",
            "our own SVID is early",
            "date -u",
            id="clock-wrong-at-start",
        ),
        pytest.param(
            [("identity.last_error", "our own SVID is early, by this machine's clock")],
            "note",
            "clock",
            "our own SVID is early",
            "date -u",
            id="clock-wrong-later",
        ),
        pytest.param(
            [("identity.missing_trust_domains", ["partner.example"])],
            "note",
            "trust domains",
            "no bundle for partner.example",
            "federate",
            id="bundle-gone",
        ),
        pytest.param(
            [("issuers.0.key_age_s", None), ("issuers.0.last_error", "refused")],
            "wrong",
            f"keys of {ISSUER}",
            "none of its tokens can be verified (refused)",
            "jwks URL",
            id="no-keys",
        ),
        pytest.param(
            [("revocations.0.stale", True), ("revocations.0.last_error", "status 503")],
            "wrong",
            f"revocations of {ISSUER}",
            "its tokens are refused (status 503)",
            "revocations.url",
            id="revocations-too-old",
        ),
        pytest.param(
            [("revocations.0.last_error", "status 503")],
            "note",
            f"revocations of {ISSUER}",
            "status 503; the list was confirmed",
            "revocations.url",
            id="revocations-not-confirmed",
        ),
        pytest.param(
            [("issuers.0.key_age_s", None), ("issuers.0.needed", False)],
            "note",
            f"keys of {ISSUER}",
            "there are none",
            "jwks URL",
            id="no-keys-of-an-issuer-nobody-needs",
        ),
        pytest.param(
            [("issuers.0.last_error", "a redirect")],
            "note",
            f"keys of {ISSUER}",
            "a redirect; the last set came 1 min ago",
            "jwks URL",
            id="keys-old",
        ),
        pytest.param(
            [("issuers.0.last_error", "different keys have the same kid, so none of them is used: k1")],
            "note",
            f"keys of {ISSUER}",
            "none of them is used: k1; the last set came 1 min ago",
            "a kid of its own",
            id="keys-ambiguous",
        ),
        pytest.param(
            [("issuers.0.last_error", "the key set is empty")],
            "wrong",
            f"keys of {ISSUER}",
            "is empty",
            "publishes keys",
            id="keys-empty",
        ),
        pytest.param(
            [("records.trouble", "the record sink failed: ENOSPC")],
            "wrong",
            "records",
            "ENOSPC: calls that cannot be recorded are refused",
            "make room",
            id="sink-full",
        ),
        pytest.param(
            [("records.trouble", "the record sink failed: EROFS")],
            "wrong",
            "records",
            "EROFS",
            "writable",
            id="sink-ro",
        ),
        pytest.param(
            [("records.trouble", "the record sink is blocked")],
            "wrong",
            "records",
            "blocked",
            "takes",
            id="sink-blocked",
        ),
        pytest.param(
            [("records.trouble", "the record sink failed: EROFU")],
            "wrong",
            "records",
            "ROFU",
            "can be written",
            id="sink",
        ),
        pytest.param(
            [("records.trouble", "the record sink failed: EIO")],
            "wrong",
            "records",
            "EIO",
            "reports errors",
            id="sink-io",
        ),
        pytest.param(
            [("records.trouble", "the record sink failed: ENXIO")],
            "wrong",
            "records",
            "ENXIO",
            "reader",
            id="sink-pipe",
        ),
        pytest.param(
            [("records.free_bytes", 1023 << 20)],
            "note",
            "records",
            "1023 MiB free of 10240 MiB; once it is full every call is refused",
            "rotate",
            id="disk-fills",
        ),
        pytest.param(
            [("records.full_in_s", 4 * 3600 - 1)],
            "note",
            "records",
            "used up in 3 h 59 min at the present rate",
            "rotate",
            id="disk-fills-fast",
        ),
        pytest.param(
            [("records.waiting_bytes", 1 << 19), ("records.waiting", 500)],
            "note",
            "records",
            "500 records wait",
            "keeps up",
            id="backlog",
        ),
        pytest.param([("records.lost", 3)], "note", "records", "3 events were lost", "seq", id="events-lost"),
        pytest.param(
            [("settings.refused_at", NOW - 5), ("settings.problems", [PROBLEM])],
            "note",
            "settings: drian_s",
            "refused 5 s ago, version 1 stays: is not a setting",
            "write drain_s",
            id="broken-settings",
        ),
        pytest.param(
            [("settings.refused_at", NOW - 5), ("settings.problems", [OLDER])],
            "note",
            "settings: drian_s",
            "refused 5 s ago, version 1 stays: is not a setting",
            "write drain_s",
            id="broken-settings-of-an-older-process",
        ),
        pytest.param(
            [("exchanges.0.last_refusal", {"at": NOW - 5, "reason": "sts_timeout", "detail": "no token"})],
            "note",
            "token service",
            "5 s ago, gave no token: sts_timeout, no token",
            "operator",
            id="sts-hangs",
        ),
        pytest.param(
            [("exchanges.0.endpoints", [WORKS, {**FAILS, "open": True}])],
            "note",
            "token service, replica",
            "https://b has failed for 5 s: sts_timeout, no answer; it is asked once in a few seconds",
            "operator",
            id="replica-away",
        ),
        pytest.param(
            [("exchanges.0.endpoints", [FAILS, WORKS])],
            "note",
            "token service, replica",
            "it is asked after the others",
            "operator",
            id="replica-fails",
        ),
        pytest.param(
            [("agent.up", False)],
            "wrong",
            "agent",
            "nothing listens at 127.0.0.1:8080",
            "start the agent",
            id="agent-dead",
        ),
        pytest.param(
            [("upstreams", [upstream("outbound", "upstream_identity", "svid_expired: spiffe://a.example/b")])],
            "note",
            "next hop 10.0.0.7:7443",
            "5 s ago, failed: upstream_identity, svid_expired: spiffe://a.example/b",
            "renew an expired",
            id="next-hop-expired",
        ),
        pytest.param(
            [("upstreams", [upstream("outbound", "upstream_unreachable", "the name cannot be looked up")])],
            "note",
            "next hop 10.0.0.7:7443",
            "upstream_unreachable, the name cannot be looked up",
            "operator",
            id="dns-broken",
        ),
        pytest.param(
            [("agent.up", None), ("upstreams", [upstream("inbound", "upstream_unreachable", "refused")])],
            "note",
            "agent 10.0.0.7:7443",
            "upstream_unreachable",
            "developer",
            id="agent-never-there",
        ),
        pytest.param(
            [("agent.up", False), ("upstreams", [upstream("inbound", "upstream_unreachable", "refused")])],
            "wrong",
            "agent",
            "nothing listens",
            "start the agent",
            id="agent-dead-is-told-once",
        ),
        pytest.param([("restarts", 3)], "note", "workers", "3 died since the start", "137", id="workers-die"),
        pytest.param(
            [("refused_lately", {"overloaded": 7, "no_token": 900})],
            "note",
            "overloaded",
            "7 in the last ten minutes",
            "add replicas",
            id="overload-at-the-door",
        ),
        pytest.param(
            [("refused_lately", {"actor_mismatch": 1})], "note", "actor_mismatch", "1 in the", "stolen", id="stolen"
        ),
        pytest.param(
            [("refused_lately", {"untrusted_chain": 2})],
            "note",
            "untrusted_chain",
            "2 in",
            "bundles",
            id="ca-withdrawn",
        ),
        pytest.param(
            [("listeners.0.connections", 100)],
            "wrong",
            "inbound listener",
            "are in use",
            "open files",
            id="descriptors",
        ),
        pytest.param(
            [("memory", {"used_bytes": 220 << 20, "limit_bytes": 256 << 20, "short": True})],
            "wrong",
            "memory",
            "220 MiB of 256 MiB are used",
            "max_memory_mib",
            id="memory",
        ),
        pytest.param(
            [("bypass.listeners", ["0.0.0.0:8080"])],
            "note",
            "listeners",
            "0.0.0.0:8080: a connection there bypasses the sidecar",
            "127.0.0.1",
            id="way-round",
        ),
        pytest.param(
            [("bypass.listeners", ["0.0.0.0:8080"]), ("bypass.refused", True)],
            "wrong",
            "listeners",
            "refuses every call",
            "other_listeners",
            id="way-round-refused",
        ),
        pytest.param(
            [("bypass.error", "Permission denied")], "note", "listeners", "cannot be read", "/proc/net/tcp", id="proc"
        ),
        pytest.param(
            [("ready", False), ("missing", ["listeners: not open yet"])],
            "wrong",
            "start",
            "not open",
            "wait",
            id="start",
        ),
    ],
)
def test_each_thing_that_is_wrong_is_told_with_its_fix(
    changes: list[tuple[str, object]], grade: str, what: str, wrong: str, fix: str
) -> None:
    (told,) = troubles(status(*changes))
    assert (told.grade, told.what) == (grade, what)
    assert wrong in told.wrong
    assert fix in told.fix


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_an_upstream_may_fail_for_has_a_fix(reason: Reason) -> None:
    (told,) = troubles(status(("upstreams", [upstream("outbound", str(reason), "")])))
    assert told.fix


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_every_state_of_an_identity_that_is_not_well_is_told(state: State) -> None:
    assert [one.what for one in troubles(status(("identity.state", str(state))))] == ["identity"]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_an_exchange_may_fail_for_has_a_fix(reason: Reason) -> None:
    (told,) = troubles(status(("exchanges.0.last_refusal", {"at": NOW, "reason": str(reason), "detail": ""})))
    assert told.fix


def test_what_refuses_calls_comes_first() -> None:
    told = troubles(status(("identity.state", "stale"), ("records.lost", 1), ("records.trouble", "x")))
    assert [one.grade for one in told] == ["wrong", "note", "note"]


def test_a_sidecar_that_never_exchanges_is_fine() -> None:
    assert troubles(status(("exchanges", []))) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_460, "1 d")],
)
def test_a_time_is_told_by_its_two_largest_units(seconds: int, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    "change",
    [
        ("records.free_bytes", 1024 << 20),
        ("records.full_in_s", 4 * 3600),
        ("records.waiting_bytes", (1 << 19) - 1),
        ("records.free_bytes", None),
    ],
)
def test_a_sink_just_above_its_thresholds_is_no_trouble(change: tuple[str, object]) -> None:
    assert troubles(status(change)) == []
