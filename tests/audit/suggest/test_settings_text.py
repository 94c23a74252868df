"""The proposed settings are accepted, let each observed call pass with a delegated token, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegation_audit.suggest.settings_text import settings_text
from delegation_core.act import ActChain, Actor
from delegation_core.decide import decide_verified, delegate
from delegation_core.errors import Denied, Reason
from delegation_core.permit import Permit
from delegation_core.plan import Delegation, plan_outbound
from delegation_core.policy import Policy
from delegation_core.records.paths import first_id
from delegation_core.records.reading import Record
from delegation_core.spiffe_id import SpiffeId
from sidecar.check import check
from sidecar.config import load_sidecar
from tests.audit.evidence import CRM, PLANNER, WRITER
from tests.audit.suggest.observed import MONDAY, TUESDAY, call, claimed, merged, often, out, suggested
from tests.core.world import INBOUND_CLAIMS, NOW, verified

PATHS: Final = ("/", "/search", "/customers", "/customers/1", "/customers/2", "/customers/3/notes", "/a/b/7", "/a/b/9")
METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
PEERS: Final = (WRITER, PLANNER, "spiffe://acme.example/agent/front")
CALLS: Final = st.sets(st.tuples(st.sampled_from(PEERS), st.sampled_from(METHODS), st.sampled_from(PATHS)), min_size=1)


def document(*records: Record) -> str:
    (one,) = suggested(*records)
    return settings_text(one)


def policy(folder: Path, *records: Record) -> Policy:
    (one,) = suggested(*records)
    return load_sidecar(merged(folder, settings_text(one)), {}).policy(SpiffeId(one.workload), 1)


def decide(policy: Policy, peer: str, method: str, path: str) -> Permit:
    """Judge a call of ``peer`` for alice that carries a delegated token of all scopes the issuer may give here."""
    chain = ActChain((Actor(peer),), {"sub": peer})
    token = replace(
        verified(INBOUND_CLAIMS), audience=str(policy.workload), chain=chain, actor_id=SpiffeId(peer),
        scope=policy.registered_scopes,
    )  # fmt: skip
    route = policy.inbound.find(method, path)
    return decide_verified(token, peer=SpiffeId(peer), route=route, policy=policy, now=NOW)


def passes(policy: Policy, peer: str, method: str, path: str) -> bool:
    try:
        decide(policy, peer, method, path)
    except Denied:
        return False
    return True


def covered(calls: set[tuple[str, str, str]], who: str, how: str, path: str) -> bool:
    """Tell if a call may pass: it was seen, or is below where the ids begin of several that its caller made."""
    own = {at for caller, method, at in calls if (caller, method) == (who, how)}
    starts = Counter(found.before for at in own if (found := first_id(at)) is not None)
    wide = (before for before, paths in starts.items() if paths > 1)
    return path in own or any(f"{path}/".startswith(f"{before}/") for before in wide)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS)
def test_each_observed_call_passes_with_a_delegated_token_and_no_other_does(
    calls: set[tuple[str, str, str]], tmp_path: Path
) -> None:
    enforced = policy(tmp_path, *(one for who, how, at in calls for one in often(peer=who, method=how, path=at)))
    for peer, method, path in product(PEERS, METHODS, PATHS):
        if (peer, method, path) in calls:
            assert passes(enforced, peer, method, path)
        elif not covered(calls, peer, method, path):
            assert not passes(enforced, peer, method, path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS, hostile=CALLS)
def test_calls_that_nobody_but_the_called_side_supports_open_nothing(
    calls: set[tuple[str, str, str]], hostile: set[tuple[str, str, str]], tmp_path: Path
) -> None:
    def made(among: set[tuple[str, str, str]], record: Callable[..., Record]) -> list[Record]:
        return [
            record(day, peer=who, method=how, path=at)
            for who, how, at in sorted(among)
            for day in (MONDAY, TUESDAY, TUESDAY)
        ]

    alone = policy(tmp_path, *made(calls, call))
    attacked = policy(tmp_path, *made(calls, call), *made(hostile, claimed))
    for one in product(PEERS, METHODS, PATHS):
        assert passes(attacked, *one) == passes(alone, *one)


@pytest.mark.parametrize(
    ("peer", "method", "path", "reason"),
    [
        pytest.param(PLANNER, "GET", "/customers/3", Reason.POLICY_DENIED, id="peer"),
        pytest.param(WRITER, "POST", "/customers/3", Reason.METHOD_REFUSED, id="method"),
        pytest.param(WRITER, "GET", "/orders/3", Reason.NO_ROUTE, id="path"),
    ],
)
def test_a_call_with_one_fact_changed_is_refused(
    peer: str, method: str, path: str, reason: Reason, tmp_path: Path
) -> None:
    enforced = policy(tmp_path, *often(path="/customers/1"), *often(path="/customers/2"))
    assert decide(enforced, WRITER, "GET", "/customers/3").route.name == "customers"
    with pytest.raises(Denied) as denied:
        decide(enforced, peer, method, path)
    assert denied.value.reason is reason


def test_a_token_without_the_proposed_scope_is_refused(tmp_path: Path) -> None:
    enforced = policy(tmp_path, *often())
    route = enforced.inbound.find("GET", "/customers")
    with pytest.raises(Denied) as denied:
        decide(replace(enforced, inbound=type(enforced.inbound)([replace(route, scopes=frozenset({"x"}))])), WRITER,
               "GET", "/customers")  # fmt: skip
    assert denied.value.reason in {Reason.SCOPE_ABOVE_CEILING, Reason.INSUFFICIENT_SCOPE}


def test_an_observed_call_of_the_agent_passes_in_a_request_that_may_make_it(tmp_path: Path) -> None:
    served = often(workload=WRITER, peer=PLANNER, method="POST", path="/draft", scope_needed=frozenset({"crm.read"}))
    enforced = policy(tmp_path, *served, *(out(day) for day in (MONDAY, TUESDAY, TUESDAY)))
    (route,) = enforced.outbound.routes
    request = delegate(decide(enforced, PLANNER, "POST", "/draft"))
    plan = plan_outbound(request, route, policy=enforced, now=NOW)
    assert (plan.audience, plan.scope, route.peer) == (CRM, frozenset({"crm.read"}), SpiffeId(CRM))
    closed = Delegation(token=request.token, may_call=frozenset(), entry=False, scope=request.scope)
    with pytest.raises(Denied) as denied:
        plan_outbound(closed, route, policy=enforced, now=NOW)
    assert denied.value.reason is Reason.CALL_NOT_ALLOWED


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(often(), id="one-route"),
        pytest.param([call(), out(workload=CRM, peer=WRITER)], id="all-held-back"),
        pytest.param([*often(), *often(method="POST", peer=PLANNER), call(peer=None), call(path="/x")], id="several"),
        pytest.param([*often(workload=WRITER), *[out(MONDAY), out(TUESDAY)] * 3], id="both-sides"),
        pytest.param(often(path="/it's/$&(),=:@!*+'%C3%A4"), id="every-character-of-a-path"),
    ],
)
def test_the_check_accepts_the_proposal_with_its_comments_and_without(records: list[Record], tmp_path: Path) -> None:
    text = document(*records)
    assert check(merged(tmp_path, text), {}).problems == []
    lines = text.replace("routes: []", "routes:").split("\n")
    opened = "\n".join(line.replace("# - ", "- ", 1).replace("    #   ", "      ", 1) for line in lines)
    assert check(merged(tmp_path, opened), {}).problems == []
    assert opened.count("\n    - name: ") == text.count("- name: ")


def test_the_comments_say_what_a_route_rests_on() -> None:
    text = document(*often(path="/c/1"), *often(path="/c/2"), call(TUESDAY, path="/c/2", peer=PLANNER), call(path="/x"))
    assert (
        text
        == f"""# {CRM}
inbound:
  routes:
    # 6 calls on 2 days, 1 caller; widened from 2 paths
    - name: "c"
      match: {{path_prefix: "/c", methods: ["GET"]}}
      scopes: ["crm.read"]  # made from the method; use the names that your token service knows
      peers:
        - "{WRITER}"  # 6 calls on 2 days, as r/1, r/1, r/1, 3 more
    # held back: seen 1 time
    # 1 call on 1 day, 1 caller
    # - name: "c-2"
    #   match: {{path: "/c/2", methods: ["GET"]}}
    #   scopes: ["crm.read"]  # made from the method; use the names that your token service knows
    #   peers:
    #     - "{PLANNER}"  # 1 call on 1 day, as r/1
    # held back: seen 1 time
    # 1 call on 1 day, 1 caller
    # - name: "x"
    #   match: {{path: "/x", methods: ["GET"]}}
    #   scopes: ["crm.read"]  # made from the method; use the names that your token service knows
    #   peers:
    #     - "{WRITER}"  # 1 call on 1 day, as r/1
"""
    )


def test_a_comment_names_the_scopes_of_held_back_calls_that_a_route_goes_without() -> None:
    once = call(path="/tenants", scope_needed=frozenset({"crm.admin"}))
    route = next(one for one in suggested(*often(), once, out(), out(TUESDAY), out(TUESDAY)) if one.outbound)
    lines = settings_text(route).splitlines()
    assert '    # without ["crm.admin"]: all calls that need them are held back at the peer' in lines
    assert '      scopes: ["crm.read"]  # made from the method; use the names that your token service knows' in lines


HOSTILE: Final = st.text(max_size=30) | st.sampled_from(
    ['"\ninbound: {}', "# x\n- name: y", "'", "\\", "*a", "&a", "\u2028", "\x85", "/a\n  peers: [x]", "{}", "!!python"]
)


@settings(max_examples=25, deadline=None)
@given(
    text=HOSTILE,
    key=st.sampled_from(["path", "route", "method", "peer", "workload", "scope_needed", "reason", "ts", "run"]),
)
def test_nothing_in_a_record_leaves_its_string_or_comment(text: str, key: str) -> None:
    value = frozenset({text}) if key == "scope_needed" else f"/{text}" if key == "path" else text
    change: dict[str, Any] = {key: value}
    sides = [often(**change), [out(**change), out(TUESDAY, **change)] * 2]
    for one in (one for records in sides for one in suggested(*records)):
        parsed = yaml.load(settings_text(one), yaml.CSafeLoader)
        assert set(parsed) <= {"inbound", "outbound"}
        for side in parsed.values():
            for route in side["routes"]:
                allowed = {"name", "match", "scopes", "peers", "peer", "upstream", "audience", "may_call"}
                assert set(route) <= allowed
        assert all(line.isascii() and line.isprintable() for line in settings_text(one).split("\n"))


def test_neither_entry_nor_self_nor_static_keys_are_proposed() -> None:
    text = document(*often(workload=WRITER, reason="act_missing", subject=CRM), *[out(MONDAY), out(TUESDAY)] * 3)
    for word in ("entry", "allow_self", "self", "inject", "passthrough", "token:", "pass_token", "observe_until"):
        assert word not in text
