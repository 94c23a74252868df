import functools
from typing import Any

import pytest

from tests.audit.chains.evidence import audit, findings_of_each
from tests.audit.evidence import CRM, PLANNER, WRITER, Evidence, lawful

pytestmark = pytest.mark.integration


def texts(evidence: Evidence) -> list[str]:
    return [finding.text for finding in audit(evidence).findings]


def changed(*gone: str, **changes: dict[str, Any]) -> Evidence:
    told = {name: one for name, one in lawful().items() if name not in gone}
    for name, change in changes.items():
        told[name].update(change)
    return told


TOKEN = ("actor", "chain", "scope", "fp", "audience", "parent_jti", "jti_in")
LAST = f"{WRITER} → {CRM}"
REFUSED = {"decision": "deny", "reason": "insufficient_scope", "status": 403}
LEFT = {"peer": None, "jti_out": None, "call_out": None, "upstream_status": None}


CASES: list[Any] = [
    pytest.param(changed("caller3"), [f"{LAST}: the caller has no record of it"], id="caller"),
    pytest.param(changed("callee3"), [f"{LAST}: the callee has no record of it"], id="callee"),
    pytest.param(
        changed("caller3", "issued3"),
        [f"{LAST}: the caller has no record of it", f"{LAST}: the token service has no record of it"],
        id="only-the-callee-tells",
    ),
    pytest.param(
        changed("callee3", "issued3", caller3={"upstream_status": None}),
        [f"{LAST}: the token service has no record of it"],
        id="only-the-caller-tells",
    ),
    pytest.param(
        changed("issued3", callee3=REFUSED),
        [f"{LAST}: the token service has no record of it", f"{LAST}: refused by {CRM}: insufficient_scope"],
        id="a-refused-call-has-a-token-all-the-same",
    ),
    pytest.param(
        changed("issued3", "caller3", "callee3"),
        [f"{LAST}: the token service has no record of it"],
        id="only-the-callers-exchange",
    ),
    pytest.param(
        changed("callee2", caller2={"upstream_status": None}),
        [f"{PLANNER} → {WRITER}: the callee has no record of it"],
        id="a-silent-callee-that-called-on",
    ),
    pytest.param(changed(caller3={"peer": None}), [], id="a-caller-that-expects-nobody-in-particular"),
    pytest.param(
        changed("issued3", "exchanged3", "callee3", caller3={**LEFT, "host": "api.example:443"}),
        [],
        id="a-tunnel-out-of-the-mesh-has-no-token",
    ),
    pytest.param(
        changed("issued3", "exchanged3", "callee3", caller3={**LEFT, "credential": "inject:ab"}),
        [],
        id="a-static-key-out-of-the-mesh-has-no-token",
    ),
    pytest.param(
        changed("issued3", "exchanged3", "callee3", caller3={**LEFT, "call_out": "c3"}),
        [f"{WRITER} → {CRM}: the token service has no record of it"],
        id="a-call-into-the-mesh-has-one",
    ),
    pytest.param(
        changed("issued3", "exchanged3", "caller3", callee3={**REFUSED, "call_in": None}),
        [f"{LAST}: refused by {CRM}: insufficient_scope"],
        id="a-refused-stranger",
    ),
    pytest.param(
        changed(callee3={**REFUSED, "reason": "bad_signature", "verified": False, "jti_in": None}),
        [f"{LAST}: refused by {CRM}: bad_signature"],
        id="a-token-that-did-not-verify-is-no-other-token",
    ),
    pytest.param(
        changed(callee3={"chain": None, "actor": None, "jti_in": "x", "fp": "x", "parent_jti": None, "txn": "t9"}),
        [
            "call c3 left with token j3 and came in with token x, of chain t9",
            f"{CRM} accepted {WRITER} with a token that names no actor",
        ],
        id="a-token-of-another-chain",
    ),
    pytest.param(
        changed(callee3={"method": "DELETE"}),
        ["call c3 left as GET and came in as DELETE"],
        id="another-method",
    ),
    pytest.param(
        changed(caller3={"call_in": "c1"}),
        [
            f"{LAST} belongs to a request that {PLANNER} served",
            f"{LAST} was made with token j2 for a request with token j1",
        ],
        id="another-request",
    ),
    pytest.param(
        changed("issued2", "exchanged2", "caller2", "callee2"),
        [f"{PLANNER} → {WRITER}: the hop has no record"],
        id="a-hop-that-only-the-chain-remembers",
    ),
]


@functools.cache
def found_in_cases() -> list[list[str]]:
    found = findings_of_each([case.values[0] for case in CASES])
    return [sorted(finding.text for finding in case) for case in found]


@pytest.mark.parametrize(
    ("number", "expected"), [pytest.param(n, case.values[1], id=case.id) for n, case in enumerate(CASES)]
)
def test_each_finding_says_what_was_found(number: int, expected: list[str]) -> None:
    assert found_in_cases()[number] == sorted(expected)


def test_a_call_that_its_own_sidecar_refused_says_so() -> None:
    evidence = changed("issued3", "exchanged3", "callee3")
    evidence["caller3"].update(
        decision="deny", reason="call_not_allowed", call_out=None, jti_out=None, route="crm", upstream_status=None,
        **{name: evidence["callee2"][name] for name in TOKEN},
    )  # fmt: skip
    assert texts(evidence) == [
        f"{WRITER} → route crm: refused by its own sidecar: call_not_allowed",
        f"{WRITER} tried to call crm: call_not_allowed",
    ]
