"""Contradictions are reported beside faults of the schema, unless they read a section that has such a fault."""

from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from delegation_core.errors import Problem
from tests.config.documents import ABSENT, changed, example, problems

AGENT = example("agent")
STS = example("sts")
LOGIN = STS["login_issuers"][0]

Change = tuple[str, object]


class Case(NamedTuple):
    """One fault: the change that makes it, the field reported, and the sections whose faults hide it."""

    change: Change
    field: str
    reads: tuple[str, ...] = ()


FAULTS: Final = {
    "a missing key": Case(("inbound.routes.0.name", ABSENT), "inbound.routes[0].name"),
    "a missing key that others name": Case(("outbound.routes.0.name", ABSENT), "outbound.routes[0].name"),
    "a missing section": Case(("inbound.routes.0.match", ABSENT), "inbound.routes[0].match"),
    "a missing list": Case(("issuers.0.actor_trust_domains", ABSENT), "issuers[0].actor_trust_domains"),
    "a missing name of an issuer": Case(("exchange.issuer", ABSENT), "exchange.issuer"),
    "an unknown key": Case(("inbound.routes.0.zeal", 1), "inbound.routes[0].zeal"),
    "a misspelt section": Case(("drain", 3), "drain"),
    "a quoted number": Case(("inbound.routes.0.max_calls", "16"), "inbound.routes[0].max_calls"),
    "a text for a list": Case(("issuers.0.scopes", "docs.read"), "issuers[0].scopes"),
    "a broken item": Case(("outbound.routes.0.scopes", ["crm.read", "a b"]), "outbound.routes[0].scopes[1]"),
    "a broken address": Case(("inbound.listen", 7443), "inbound.listen"),
    "a key of a later release": Case(("workers", 2), "workers"),
    "a text for a section": Case(("records", "x"), "records"),
    "a list for a section": Case(("outbound", []), "outbound"),
}
CONTRADICTIONS: Final = {
    "one address for two": Case(("probe", {"listen": "127.0.0.1:7080"}), "probe.listen", ("inbound", "outbound")),
    "an agent elsewhere": Case(("inbound.agent", "http://10.0.0.1:80"), "inbound.agent", ("inbound",)),
    "a foreign audience": Case(
        ("inbound.audiences", ["spiffe://acme.example/x"]), "inbound.audiences[0]", ("inbound",)
    ),
    "a row of two meanings": Case(("deny", [{"jti": "a", "issuer": "b"}]), "deny[0].issuer"),
    "a target without a peer": Case(("outbound.routes.0.peer", ABSENT), "outbound.routes[0].peer", ("outbound",)),
    "a peer that nobody vouches for": Case(
        ("inbound.routes.0.peers", ["spiffe://partner.example/a"]),
        "inbound.routes[0].peers",
        ("inbound", "outbound", "issuers", "exchange"),
    ),
    "a scope above the ceiling": Case(
        ("inbound.routes.0.scopes", ["docs.write"]),
        "inbound.routes[0].scopes",
        ("inbound", "outbound", "issuers", "exchange"),
    ),
    "a call to nowhere": Case(
        ("inbound.routes.0.may_call", ["mail"]), "inbound.routes[0].may_call", ("inbound", "outbound")
    ),
    "a long socket": Case(("admin.socket", "/" + "s" * 107), "admin.socket"),
    "two identities": Case(("identity.files", {"layout": "spiffe-helper", "directory": "/x"}), "identity.workload_api"),
}
CASES: Final = FAULTS | CONTRADICTIONS


def told(folder: Path, *names: str) -> set[str]:
    return {problem.field for problem in problems(folder, changed(AGENT, *(CASES[name].change for name in names)))}


def fields(*names: str) -> set[str]:
    return {CASES[name].field for name in names}


@pytest.mark.parametrize("name", CASES)
def test_one_fault_is_one_problem_and_causes_no_other(name: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(AGENT, CASES[name].change))
    assert problem.field == CASES[name].field


@pytest.mark.parametrize("first", FAULTS)
def test_any_two_faults_of_the_schema_are_told_together(first: str, tmp_path: Path) -> None:
    for pair in combinations(FAULTS, 2):
        sections = {CASES[name].field.partition(".")[0] for name in pair}
        if pair[0] == first and sections != {"outbound"}:  # one replaces the section of the other
            assert told(tmp_path, *pair) == fields(*pair), pair


def test_all_contradictions_are_told_together(tmp_path: Path) -> None:
    assert told(tmp_path, *CONTRADICTIONS) == fields(*CONTRADICTIONS)


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_contradiction_is_told_beside_a_fault_of_a_section_that_it_does_not_read(
    contradiction: str, tmp_path: Path
) -> None:
    for fault in FAULTS:
        section = CASES[fault].field.partition(".")[0].partition("[")[0]
        found = told(tmp_path, contradiction, fault)
        hidden = section in CASES[contradiction].reads
        assert found == fields(fault) | (set() if hidden else fields(contradiction)), fault


def test_a_misspelt_section_is_not_called_missing(tmp_path: Path) -> None:
    misspelt = {("isuers" if key == "issuers" else key): value for key, value in AGENT.items()}
    assert [problem.field for problem in problems(tmp_path, misspelt)] == ["isuers"]
    found = problems(tmp_path, changed(misspelt, ("inbound.agent", "http://10.0.0.1:80")))
    assert {problem.field for problem in found} == {"isuers", "inbound.agent"}


def test_a_fault_of_the_environment_hides_no_contradiction_elsewhere(tmp_path: Path) -> None:
    clash = changed(AGENT, ("inbound.agent", "http://10.0.0.1:80"))
    found = problems(tmp_path, clash, SIDECAR__DRAIN_S="x")
    assert {problem.field for problem in found} == {"drain_s (SIDECAR__DRAIN_S)", "inbound.agent"}


def test_a_contradiction_is_told_in_the_same_words_beside_a_fault_as_alone(tmp_path: Path) -> None:
    clash = changed(AGENT, ("inbound.routes.0.scopes", ["docs.write", "docs.admin"]))
    alone = problems(tmp_path, clash)
    beside = problems(tmp_path, changed(clash, ("drain_s", "x")))
    assert set(alone) == {problem for problem in beside if problem.field != "drain_s"}


STS_FAULTS: Final[dict[str, tuple[Change, str]]] = {
    "a missing workload": (("targets.0.workload", ABSENT), "targets[0].workload"),
    "a missing audience": (("rules.0.audience", ABSENT), "rules[0].audience"),
    "a missing login issuer": (("login_issuers.0.issuer", ABSENT), "login_issuers[0].issuer"),
    "an unknown key": (("rules.1.zeal", 1), "rules[1].zeal"),
    "a text for a number": (("token_life_s", "300"), "token_life_s"),
    "no keys": (("keys", ABSENT), "keys"),
}
STS_CONTRADICTIONS: Final[dict[str, tuple[Change, str]]] = {
    "a profile that cannot be": (("login_issuers.0.profile", {"preset": "sts"}), "login_issuers[0].kind"),
    "a long life": (("entries.0.delegation_life_s", 90_000), "entries.spiffe://acme.example/front.delegation_life_s"),
    "one port for two": (("probe", {"listen": "0.0.0.0:7444"}), "listen"),
    "a rule of nowhere": (("rules.1.audience", "https://nowhere.example"), "rules[1].audience"),
}


def sts_told(folder: Path, cases: dict[str, tuple[Change, str]]) -> set[str]:
    document = changed(STS, *(change for change, _ in cases.values()))
    return {problem.field for problem in problems(folder, document, sts=True)}


@pytest.mark.parametrize("cases", [STS_FAULTS, STS_CONTRADICTIONS], ids=["schema", "contradictions"])
def test_all_faults_of_one_pass_of_a_token_service_are_told_together(
    cases: dict[str, tuple[Change, str]], tmp_path: Path
) -> None:
    for name, (change, field) in cases.items():
        assert sts_told(tmp_path, {name: (change, field)}) == {field}
    assert sts_told(tmp_path, cases) == {field for _, field in cases.values()}


@pytest.mark.parametrize("fault", STS_FAULTS)
def test_a_fault_of_a_needed_section_hides_no_contradiction_elsewhere(fault: str, tmp_path: Path) -> None:
    both = {fault: STS_FAULTS[fault], "one port for two": STS_CONTRADICTIONS["one port for two"]}
    assert sts_told(tmp_path, both) == {field for _, field in both.values()}


def test_a_login_profile_that_cannot_be_hides_no_contradiction_of_the_policy(tmp_path: Path) -> None:
    broken = {**LOGIN, "profile": {"preset": "oidc-access-token", "actor_table": [ROW, ROW]}}
    found = problems(
        tmp_path, changed(STS, ("login_issuers.0", broken), ("rules.1.audience", "https://nowhere.example")), sts=True
    )
    assert [problem.field for problem in found] == ["login_issuers[0].profile.actor_table", "rules[1].audience"]


ROW = {"sub": "a", "spiffe_id": "spiffe://acme.example/a"}


def test_each_entry_issuer_with_a_profile_that_cannot_be_is_told(tmp_path: Path) -> None:
    entry = example("entry")
    (user,) = entry["entry"]["issuers"]
    broken = {**user, "profile": {"preset": "oidc-id-token", "actor_table": [ROW, ROW]}}
    other = {**broken, "issuer": "https://other.example", "subject_prefix": "other:"}
    found: list[Problem] = problems(tmp_path, changed(entry, ("entry.issuers", [broken, other])))
    assert {problem.field for problem in found} == {
        "entry.issuers[0].profile.actor_table",
        "entry.issuers[1].profile.actor_table",
    }
