"""Whatever is wrong together is told together: the next run after the cures finds nothing new."""

from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

from sidecar.errors import Problem
from tests.config.documents import ABSENT, changed, example, problems

AGENT = example("agent")
STS = example("sts")
ROUTE = AGENT["inbound"]["routes"][0]
CRM = AGENT["outbound"]["routes"][0]
LOGIN = STS["login_issuers"][0]

Change = tuple[str, object]

# Each has exactly one thing wrong, and says where.
FAULTS: Final[dict[str, tuple[Change, str]]] = {
    "a missing key": (("inbound.routes.0.name", ABSENT), "inbound.routes[0].name"),
    "a missing key that others speak of": (("outbound.routes.0.name", ABSENT), "outbound.routes[0].name"),
    "a missing section": (("inbound.routes.0.match", ABSENT), "inbound.routes[0].match"),
    "a missing list": (("issuers.0.actor_trust_domains", ABSENT), "issuers[0].actor_trust_domains"),
    "a missing name of an issuer": (("exchange.issuer", ABSENT), "exchange.issuer"),
    "an unknown key": (("inbound.routes.0.zeal", 1), "inbound.routes[0].zeal"),
    "a misspelt section": (("drain", 3), "drain"),
    "a quoted number": (("inbound.routes.0.max_calls", "16"), "inbound.routes[0].max_calls"),
    "a text for a list": (("issuers.0.scopes", "docs.read"), "issuers[0].scopes"),
    "an item that is none": (("outbound.routes.0.scopes", ["crm.read", "a b"]), "outbound.routes[0].scopes[1]"),
    "a broken address": (("inbound.listen", 7443), "inbound.listen"),
    "what is not available yet": (("workers", 2), "workers"),
    "one address for two": (("probe", {"listen": "127.0.0.1:7080"}), "probe.listen"),
    "an agent elsewhere": (("inbound.agent", "http://10.0.0.1:80"), "inbound.agent"),
    "a foreign audience": (("inbound.audiences", ["spiffe://acme.example/x"]), "inbound.audiences[0]"),
    "a row of two meanings": (("deny", [{"jti": "a", "issuer": "b"}]), "deny[0].issuer"),
    "a target without a peer": (("outbound.routes.0.peer", ABSENT), "outbound.routes[0].peer"),
    "a peer that nobody vouches for": (
        ("inbound.routes.0.peers", ["spiffe://partner.example/a"]),
        "inbound.routes[0].peers",
    ),
    "a scope above the ceiling": (("inbound.routes.0.scopes", ["docs.write"]), "inbound.routes[0].scopes"),
    "a call to nowhere": (("inbound.routes.0.may_call", ["mail"]), "inbound.routes[0].may_call"),
    "a long socket": (("admin.socket", "/" + "s" * 107), "admin.socket"),
}
# The second cannot be judged before the first is cured: the cure may well be what makes it right.
OPEN: Final = {
    ("a missing key that others speak of", "a call to nowhere"),
    ("a missing list", "a peer that nobody vouches for"),
    ("a text for a list", "a scope above the ceiling"),
}


def told(folder: Path, *names: str) -> set[str]:
    return {problem.field for problem in problems(folder, changed(AGENT, *(FAULTS[name][0] for name in names)))}


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_is_one_problem_and_nothing_is_said_because_of_it(name: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(AGENT, FAULTS[name][0]))
    assert problem.field == FAULTS[name][1]


@pytest.mark.parametrize("first", FAULTS)
def test_any_two_faults_are_told_together(first: str, tmp_path: Path) -> None:
    for pair in combinations(FAULTS, 2):
        if pair[0] == first and pair not in OPEN:
            assert told(tmp_path, *pair) == {FAULTS[name][1] for name in pair}, pair


@pytest.mark.parametrize("pair", OPEN)
def test_what_a_cure_may_make_right_is_not_called_wrong(pair: tuple[str, str], tmp_path: Path) -> None:
    assert told(tmp_path, *pair) == {FAULTS[pair[0]][1]}


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    names = FAULTS.keys() - {later for _, later in OPEN}
    assert told(tmp_path, *names) == {FAULTS[name][1] for name in names}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param(
            [("inbound", "x"), ("outbound.listen", "0.0.0.0:1")], {"inbound", "outbound.listen"}, id="a-lost-section"
        ),
        pytest.param(
            [("outbound", []), ("inbound.agent", "http://10.0.0.1:80")],
            {"outbound", "inbound.agent"},
            id="a-lost-section-that-others-speak-of",
        ),
        pytest.param(
            [("outbound.routes", ABSENT), ("inbound.agent", "http://10.0.0.1:80")],
            {"outbound.routes", "inbound.agent"},
            id="no-routes-to-speak-of",
        ),
        pytest.param(
            [("inbound.routes", ["x", {**ROUTE, "may_call": ["mail"]}])],
            {"inbound.routes[0]", "inbound.routes[1].may_call"},
            id="a-route-that-is-none-and-the-next-is-counted-right",
        ),
        pytest.param(
            [("inbound.audiences", [1, 2, "https://a", "spiffe://acme.example/x"])],
            {"inbound.audiences[0]", "inbound.audiences[1]", "inbound.audiences[3]"},
            id="items-that-are-none-and-the-next-is-counted-right",
        ),
        pytest.param(
            [("outbound.routes", [{"name": "crm"}, {**CRM, "name": "b", "match": {"host": "b", "prefix": "/b"}}])],
            {
                *(f"outbound.routes[0].{key}" for key in ("match", "upstream", "audience", "scopes")),
                "outbound.routes[1].match",
            },
            id="a-route-of-nothing-but-a-name",
        ),
        pytest.param(
            [("inbound.routes.0.match", {"methods": ["post"], "path": "/a/../b", "path_prefix": "/a"})],
            {"inbound.routes[0].match", "inbound.routes[0].match.path", "inbound.routes[0].match.methods[0]"},
            id="a-match-with-everything-wrong",
        ),
        pytest.param(
            [("issuers.0.issuer", ABSENT), ("issuers.0.profile", {"leeway_s": 900}), ("issuers.0.jwks", "x")],
            {
                "issuers[0].issuer",
                "issuers[0].profile.preset",
                "issuers[0].profile.leeway_s",
                "issuers[0].jwks",
            },
            id="an-issuer-with-everything-wrong",
        ),
    ],
)
def test_what_is_wrong_inside_what_is_wrong_is_told_too(
    changes: list[Change], fields: set[str], tmp_path: Path
) -> None:
    assert {problem.field for problem in problems(tmp_path, changed(AGENT, *changes))} == fields


def test_a_misspelt_section_hides_nothing_and_makes_nothing_wrong(tmp_path: Path) -> None:
    misspelt = {("isuers" if key == "issuers" else key): value for key, value in AGENT.items()}
    assert [problem.field for problem in problems(tmp_path, misspelt)] == ["isuers"]
    found = problems(tmp_path, changed(misspelt, ("inbound.agent", "http://10.0.0.1:80")))
    assert {problem.field for problem in found} == {"isuers", "inbound.agent"}


def test_a_fault_of_the_environment_hides_no_contradiction(tmp_path: Path) -> None:
    clash = changed(AGENT, ("inbound.agent", "http://10.0.0.1:80"))
    found = problems(tmp_path, clash, SIDECAR__INBOUND__LISTEN="7443", SIDECAR__PROBE__LISTEN="0.0.0.0:7443")
    assert {problem.field for problem in found} == {"inbound.listen (SIDECAR__INBOUND__LISTEN)", "inbound.agent"}


def test_a_contradiction_is_told_in_the_same_words_beside_a_fault_as_alone(tmp_path: Path) -> None:
    clash = changed(AGENT, ("inbound.routes.0.scopes", ["docs.write", "docs.admin"]))
    alone = problems(tmp_path, clash)
    beside = problems(tmp_path, changed(clash, ("outbound.routes.0.name", ABSENT)))
    assert set(alone) == {problem for problem in beside if problem.field != "outbound.routes[0].name"}


def test_of_a_list_with_one_broken_item_each_other_item_is_judged(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        changed(
            AGENT,
            ("issuers.0.scopes", ["docs.read", "crm.read", "a b"]),
            ("inbound.routes.0.scopes", ["docs.read", "c d"]),
            ("inbound.routes.0.peers", ["spiffe://partner.example/a", "nobody"]),
        ),
    )
    assert {problem.field for problem in found} == {
        "issuers[0].scopes[2]",
        "inbound.routes[0].scopes[1]",
        "inbound.routes[0].peers[1]",
        "inbound.routes[0].peers",
    }


def test_the_effort_is_bounded_and_then_rather_too_much_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = changed(AGENT, ("outbound.routes.0.name", ABSENT))
    assert len(problems(tmp_path, nameless)) == 1
    monkeypatch.setattr("sidecar.config.remains.trials_for", lambda _words: 0)
    assert {problem.field for problem in problems(tmp_path, nameless)} == {
        "outbound.routes[0].name",
        "inbound.routes[0].may_call",
    }


STS_FAULTS: Final[dict[str, tuple[Change, str]]] = {
    "a missing workload": (("targets.0.workload", ABSENT), "targets[0].workload"),
    "a missing audience": (("rules.0.audience", ABSENT), "rules[0].audience"),
    "a missing login issuer": (("login_issuers.0.issuer", ABSENT), "login_issuers[0].issuer"),
    "an unknown key": (("rules.0.zeal", 1), "rules[0].zeal"),
    "a text for a number": (("token_life_s", "300"), "token_life_s"),
    "a profile that cannot be": (("login_issuers.0.profile", {"preset": "sts"}), "login_issuers[0].kind"),
    "a long life": (("entries.0.delegation_life_s", 90_000), "entries.spiffe://acme.example/front.delegation_life_s"),
    "two actors deep": (("max_depth", 99), "max_depth"),
    "one port for two": (("probe", {"listen": "0.0.0.0:7444"}), "listen"),
    "a rule of nowhere": (("rules.1.audience", "https://nowhere.example"), "rules[1].audience"),
}
STS_OPEN: Final = {("a missing workload", "a rule of nowhere")}


def sts_told(folder: Path, *names: str) -> set[str]:
    document = changed(STS, *(STS_FAULTS[name][0] for name in names))
    return {problem.field for problem in problems(folder, document, sts=True)}


@pytest.mark.parametrize("first", STS_FAULTS)
def test_any_two_faults_of_a_token_service_are_told_together(first: str, tmp_path: Path) -> None:
    assert sts_told(tmp_path, first) == {STS_FAULTS[first][1]}
    for pair in combinations(STS_FAULTS, 2):
        if pair[0] == first and pair not in STS_OPEN:
            assert sts_told(tmp_path, *pair) == {STS_FAULTS[name][1] for name in pair}, pair


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
