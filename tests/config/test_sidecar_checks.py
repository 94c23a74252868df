"""Each agreement between sections, with one fact changed.

The unchanged examples have no problem (``test_examples``).
"""

from pathlib import Path
from typing import Any

import pytest

from tests.config.documents import ABSENT, changed, example, problems

AGENT = example("agent")
ENTRY = example("entry")
ROUTE = AGENT["inbound"]["routes"][0]
CRM = AGENT["outbound"]["routes"][0]
ISSUER = AGENT["issuers"][0]
OTHER_ISSUER = {
    **ISSUER,
    "issuer": "https://other.example",
    "jwks": "https://other.example/jwks",
    "tls": {"ca": "/etc/ca.pem"},
}
PLANNER_ROUTE = ENTRY["outbound"]["routes"][0]
LONGER = {"first_token_life_s": PLANNER_ROUTE["first_token_life_s"] + 1}
AT_B = {"match": {"host": "b.mesh"}, "peer": "spiffe://acme.example/tool/b"}
ROW = {"sub": "crm", "spiffe_id": "spiffe://acme.example/tool/crm"}


def probed(*paths: str) -> dict[str, object]:
    return {"listen": "0.0.0.0:7090", "agent": list(paths)}


PROBE_AT_INBOUND = {"listen": "127.0.0.1:7443"}


def route(**changes: object) -> list[dict[str, object]]:
    return [{**ROUTE, **changes}]


def crm(**changes: object) -> list[dict[str, object]]:
    return [{**CRM, **changes}]


def two_services() -> list[tuple[str, object]]:
    """Return the changes to a second token service, with the route at the first."""
    other = {**AGENT["exchange"], "issuer": OTHER_ISSUER["issuer"]}
    return [
        ("issuers", [ISSUER, OTHER_ISSUER]),
        ("inbound.routes.0.issuers", [ISSUER["issuer"]]),
        ("exchange", [AGENT["exchange"], other]),
        ("outbound.routes.0.exchange", ISSUER["issuer"]),
    ]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        pytest.param([("inbound", ABSENT), ("outbound", ABSENT)], "inbound", "so is outbound", id="neither-side"),
        pytest.param([("issuers", [])], "issuers", "every token would be refused", id="no-issuer"),
        pytest.param([("issuers", [ISSUER, ISSUER])], "issuers", "listed twice", id="issuer-twice"),
        pytest.param([("inbound.routes.0.human", {})], "inbound.routes[0].human", "requires nothing", id="no-login"),
        pytest.param(
            [("inbound.routes.0.human", {"max_age_s": 60}), ("inbound.routes.0.allow_self", True)],
            "inbound.routes[0].human",
            "beside allow_self",
            id="a-login-of-nobody",
        ),
        pytest.param(
            [("inbound.subjects_at_once", 1), ("entry", ENTRY["entry"] | {"may_call": ["crm"]})],
            "inbound.subjects_at_once",
            "has no effect at an entry",
            id="one-subject-at-an-entry",
        ),
        pytest.param([("inbound.agent", "http://10.0.0.1:80")], "inbound.agent", "on loopback", id="agent-elsewhere"),
        pytest.param([("inbound.agent", "https://127.0.0.1:80")], "inbound.agent", "plain http", id="agent-https"),
        pytest.param([("inbound.agent", "http://127.0.0.1")], "inbound.agent", "has no port", id="agent-no-port"),
        pytest.param([("inbound.agent", "http://127.0.0.1:7443")], "inbound.agent", "sidecar's own", id="agent-is-us"),
        pytest.param([("outbound.listen", "0.0.0.0:7080")], "outbound.listen", "others", id="outbound-open"),
        pytest.param([("outbound.listen", "10.1.2.3:7080")], "outbound.listen", "others", id="outbound-on-pod-ip"),
        pytest.param([("probe", PROBE_AT_INBOUND)], "probe.listen", "address of inbound", id="one-port-two-uses"),
        pytest.param([("probe", probed("/readyz"))], "probe.agent", "the sidecar's own", id="probe-of-ours"),
        pytest.param([("probe", probed("/%20up"))], "probe.agent", "other ways", id="probe-not-plain"),
        pytest.param([("probe", probed("/up", "/up"))], "probe.agent", "listed twice", id="probe-twice"),
        pytest.param(
            [("probe", probed("/up")), ("inbound", ABSENT), ("outbound.routes.0.name", "x")],
            "probe.agent",
            "inbound has none",
            id="probe-of-nobody",
        ),
        pytest.param([("admin", {"socket": "/" + "s" * 107})], "admin.socket", "longer than 107", id="socket-too-long"),
        pytest.param([("inbound.audiences", ["a", "a"])], "inbound.audiences", "twice", id="audience-twice"),
        pytest.param(
            [("inbound.audiences", ["spiffe://acme.example/x"])], "inbound.audiences[0]", "SPIFFE ID", id="foreign-id"
        ),
        pytest.param(
            [
                ("inbound.audiences", [CRM["audience"].replace("spiffe", "https")]),
                ("outbound.routes.0.audience", CRM["audience"].replace("spiffe", "https")),
            ],
            "outbound.routes[0].audience",
            "our own audience",
            id="own-audience-as-target",
        ),
        pytest.param(
            [("outbound.routes", [*crm(audience="https://api"), *crm(name="b", audience="https://api", **AT_B)])],
            "outbound.routes[1].audience",
            "another peer",
            id="one-audience-two-peers",
        ),
        pytest.param(
            [("outbound.routes.0.audience", "spiffe://acme.example/tool/b")],
            "outbound.routes[0].audience",
            "another workload than peer",
            id="audience-is-not-the-peer",
        ),
        pytest.param(
            [("inbound.routes.0.match", {"methods": ["GET"]})], "inbound.routes[0].match", "exactly one", id="no-path"
        ),
        pytest.param(
            [("inbound.routes.0.match", {"path": "/a", "path_prefix": "/a", "methods": ["GET"]})],
            "inbound.routes[0].match",
            "exactly one",
            id="two-paths",
        ),
        pytest.param(
            [("inbound.routes.0.match.path", "/a/../b")],
            "inbound.routes[0].match.path",
            "cannot be served",
            id="path-not-canonical",
        ),
        pytest.param(
            [("inbound.routes.0.match", {"path_prefix": "/a/", "methods": ["GET"]})],
            "inbound.routes[0].match.path_prefix",
            "must not end with a slash",
            id="prefix-with-a-slash",
        ),
        pytest.param(
            [("inbound.routes.0.match.methods", ["get"])],
            "inbound.routes[0].match.methods[0]",
            "upper-case",
            id="lower-case-method",
        ),
        pytest.param(
            [("inbound.routes.0.match.methods", ["CONNECT"])],
            "inbound.routes[0].match.methods[0]",
            "CONNECT",
            id="connect",
        ),
        pytest.param(
            [("inbound.routes", [*route(), *route()])], "inbound.routes", "called search", id="route-name-twice"
        ),
        pytest.param(
            [("inbound.routes", [*route(), *route(name="b")])],
            "inbound.routes",
            "both match POST /search",
            id="overlap",
        ),
        pytest.param(
            [("inbound.routes.0.may_call", ["mail"])],
            "inbound.routes[0].may_call",
            "not an outbound",
            id="may-call-unknown",
        ),
        pytest.param(
            [("inbound.routes.0.scopes", ["docs.write"])],
            "inbound.routes[0].scopes",
            "above the ceiling",
            id="scope-above-ceiling",
        ),
        pytest.param(
            [("inbound.routes.0.peers", ["spiffe://partner.example/a"])],
            "inbound.routes[0].peers",
            "may speak for actors",
            id="peer-nobody-vouches-for",
        ),
        pytest.param(
            [("issuers", [ISSUER, OTHER_ISSUER])], "inbound.routes[0].issuers", "several", id="two-issuers-unnamed"
        ),
        pytest.param(
            [("inbound.routes.0.issuers", ["https://x"])], "inbound.routes[0].issuers", "not a configured", id="unknown"
        ),
        pytest.param(
            [("issuers", [ISSUER, OTHER_ISSUER]), ("inbound.routes.0.issuers", ["https://other.example"])],
            "inbound.routes[0].may_call",
            "cannot be used",
            id="may-call-with-tokens-that-cannot-be-exchanged",
        ),
        pytest.param(
            [("outbound.routes.0.match", {})], "outbound.routes[0].match", "exactly one", id="outbound-no-match"
        ),
        pytest.param(
            [("outbound.routes.0.match", {"prefix": "/crm/"})],
            "outbound.routes[0].match.prefix",
            "must not end with a slash",
            id="outbound-prefix-with-a-slash",
        ),
        pytest.param(
            [("outbound.routes.0.match", {"host": "Crm.Mesh"})],
            "outbound.routes[0]",
            "lower-case",
            id="upper-case-host",
        ),
        pytest.param(
            [("outbound.routes", [*crm(), *crm(name="b")])], "outbound.routes", "both match crm.mesh", id="same-host"
        ),
        pytest.param([("outbound.routes.0.peer", ABSENT)], "outbound.routes[0].peer", "anybody", id="unpinned-peer"),
        pytest.param(
            [("outbound.routes.0.upstream", "http://127.0.0.1:80")],
            "outbound.routes[0].upstream",
            "does not verify the peer",
            id="plain-http-with-a-peer",
        ),
        pytest.param(
            [("outbound.routes.0.upstream", "http://crm.internal:80"), ("outbound.routes.0.peer", ABSENT)],
            "outbound.routes[0].upstream",
            "beyond loopback",
            id="plain-http-elsewhere",
        ),
        pytest.param([("outbound.routes.0.scopes", [])], "outbound.routes[0].scopes", "empty", id="nothing-to-ask-for"),
        pytest.param(
            [("outbound.routes.0.scopes", ["crm.write"])],
            "outbound.routes[0].scopes",
            "above the ceiling",
            id="asks-above-the-ceiling",
        ),
        pytest.param(
            [("exchange", ABSENT), ("issuers.0.tls", {"ca": "/a"})], "exchange", "is missing", id="no-exchange"
        ),
        pytest.param([("exchange.issuer", "https://x")], "exchange.issuer", "not a configured", id="unknown-sts"),
        pytest.param(
            [("outbound.routes.0.exchange", "https://x")],
            "outbound.routes[0].exchange",
            "no token service",
            id="route-of-an-unknown-sts",
        ),
        pytest.param(
            [*two_services(), ("outbound.routes.0.exchange", ABSENT)],
            "outbound.routes[0].exchange",
            "several token services",
            id="two-services-unnamed",
        ),
        pytest.param(
            [*two_services(), ("exchange.1.issuer", ISSUER["issuer"])], "exchange", "listed twice", id="sts-twice"
        ),
        pytest.param(
            [*two_services(), ("exchange.1.issuer", "https://x")],
            "exchange[1].issuer",
            "not a configured",
            id="unknown-second-sts",
        ),
        pytest.param(
            [*two_services(), ("outbound.routes.0.exchange", "https://other.example")],
            "inbound.routes[0].may_call",
            "crm cannot be used",
            id="called-with-tokens-of-another-issuer",
        ),
        pytest.param([("exchange.tls", {"ca": "/a"})], "exchange.tls", "beside peer", id="two-proofs"),
        pytest.param(
            [("exchange.peer", ABSENT), ("issuers.0.tls", {"ca": "/a"})],
            "exchange.tls",
            "it is missing",
            id="unproven-sts",
        ),
        pytest.param(
            [("issuers.0.jwks", "http://sts.acme.example/jwks")], "issuers[0].jwks", "loopback", id="plain-http-keys"
        ),
        pytest.param(
            [("issuers.0.jwks", "https://keys.example/jwks")], "issuers[0].tls", "it is missing", id="unproven-keys"
        ),
        pytest.param([("issuers.0.profile", "oidc-id-token")], "issuers[0].profile", "login", id="login-profile"),
        pytest.param([("issuers.0.profile", "entra")], "issuers[0].profile", "maps no actor", id="empty-actor-table"),
        pytest.param(
            [("issuers.0.profile", {"preset": "sts", "leeway_s": 600})],
            "issuers[0].profile.leeway_s",
            "out of range",
            id="leeway",
        ),
        pytest.param(
            [("issuers.0.profile", {"preset": "entra", "actor_table": [ROW, ROW]})],
            "issuers[0].profile.actor_table",
            "two rows",
            id="actor-twice-in-the-table",
        ),
        pytest.param([("deny", [{}])], "deny[0]", "exactly one", id="deny-nothing"),
        pytest.param([("deny", [{"jti": "a", "txn": "b"}])], "deny[0]", "exactly one", id="deny-two-things"),
        pytest.param([("deny", [{"jti": "a", "issuer": "b"}])], "deny[0].issuer", "without subject", id="deny-issuer"),
    ],
)
def test_a_contradiction_is_told_with_its_field_and_fix(
    change: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    found = problems(tmp_path, changed(AGENT, *change))
    told = [problem for problem in found if problem.field == field and words in problem.wrong]
    assert told, found
    assert all(problem.fix for problem in found)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([("probe", {"listen": "127.0.0.1:0"}), ("inbound.listen", "127.0.0.1:0")], id="any-free-ports"),
        pytest.param(
            [("probe", {"listen": "127.0.0.2:7443"}), ("inbound.listen", "127.0.0.1:7443")], id="one-port-two-addresses"
        ),
        pytest.param([("probe", probed("/up", "/up-too"))], id="probes-of-the-agent"),
        pytest.param([("admin", {"socket": "/" + "s" * 106})], id="socket-of-107-bytes"),
        pytest.param([("inbound.audiences", ["https://spiffe.example"])], id="audience-that-is-a-url"),
        pytest.param([("outbound.routes.0.audience", "https://crm.example")], id="audience-of-a-peer-that-is-a-url"),
        pytest.param(
            [("outbound.routes.0.upstream", "http://127.0.0.1:80"), ("outbound.routes.0.peer", ABSENT)],
            id="plain-http-on-loopback",
        ),
        pytest.param(
            [("exchange.peer", ABSENT), ("exchange.tls", {"ca": "/a"}), ("issuers.0.tls", {"ca": "/a"})],
            id="token-service-proven-by-a-ca",
        ),
        pytest.param(
            [("inbound", ABSENT), ("issuers", []), ("exchange", ABSENT), ("outbound.routes", [])],
            id="no-issuer-where-nothing-is-called",
        ),
    ],
)
def test_settings_that_just_agree_have_no_problem(change: list[tuple[str, Any]], tmp_path: Path) -> None:
    assert problems(tmp_path, changed(AGENT, *change)) == []


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        pytest.param(
            [("entry.first_token_life_s", 3601)], "entry.first_token_life_s", "3600 s", id="first-token-above-ceiling"
        ),
        pytest.param(
            [("outbound.routes.0.first_token_life_s", 3601)],
            "outbound.routes[0].first_token_life_s",
            "3600 s",
            id="long-run-above-ceiling",
        ),
        pytest.param(
            [("entry.may_call", [])],
            "outbound.routes[0].first_token_life_s",
            "no chain starts",
            id="long-run-without-entry",
        ),
        pytest.param(
            [
                (
                    "outbound.routes",
                    [PLANNER_ROUTE, {**PLANNER_ROUTE, "name": "p2", "match": {"prefix": "/p2"}, **LONGER}],
                )
            ],
            "outbound.routes[1].first_token_life_s",
            "differs",
            id="one-audience-with-two-lives",
        ),
        pytest.param([("entry.may_call", ["mail"])], "entry.may_call", "not an outbound route", id="may-call-unknown"),
        pytest.param(
            [("entry.issuers.0.issuer", "https://sts.acme.example")], "entry.issuers[0].issuer", "itself", id="sts"
        ),
        pytest.param(
            [("entry.issuers", ENTRY["entry"]["issuers"] * 2)], "entry.issuers", "listed twice", id="issuer-twice"
        ),
        pytest.param(
            [("outbound.routes.0.match", {"prefix": "/.sidecar/subject"})],
            "outbound.routes[0].match.prefix",
            "own paths",
            id="our-own-path",
        ),
        pytest.param([("entry.issuers.0.profile", "keycloak")], "entry.issuers[0].kind", "is missing", id="no-kind"),
        pytest.param([("entry.issuers.0.kind", "id_token")], "entry.issuers[0].kind", "not the kind", id="other-kind"),
        pytest.param(
            [("entry.issuers.0.issuer", "http://127.0.0.1:7300")],
            "entry.issuers[0].issuer",
            "development only",
            id="development-beside-production",
        ),
        pytest.param([("entry.issuers.0.tls", ABSENT)], "entry.issuers[0].tls", "it is missing", id="unproven-keys"),
        pytest.param([("outbound", ABSENT), ("inbound", AGENT["inbound"])], "entry", "needs outbound", id="no-way-out"),
    ],
)
def test_a_contradiction_at_an_entry_is_told(
    change: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    found = problems(tmp_path, changed(ENTRY, *change))
    assert [problem for problem in found if problem.field == field and words in problem.wrong], found


def test_two_issuers_are_fine_where_each_route_names_its_own(tmp_path: Path) -> None:
    both = changed(AGENT, ("issuers", [ISSUER, OTHER_ISSUER]), ("inbound.routes.0.issuers", [ISSUER["issuer"]]))
    assert problems(tmp_path, both) == []


def test_each_issuer_that_a_route_names_has_a_ceiling_there(tmp_path: Path) -> None:
    low = {**OTHER_ISSUER, "scopes": []}
    both = [("issuers", [ISSUER, low]), ("inbound.routes.0.issuers", [ISSUER["issuer"]])]
    assert problems(tmp_path, changed(AGENT, *both)) == []
    found = problems(tmp_path, changed(AGENT, *both, ("inbound.routes.0.issuers", [ISSUER["issuer"], low["issuer"]])))
    assert {problem.field for problem in found} == {"inbound.routes[0].scopes"}
    assert all("above the ceiling of https://other.example" in problem.wrong for problem in found)


@pytest.mark.parametrize("absent", ["outbound", "exchange"])
def test_an_entry_needs_outbound_routes_and_an_exchange(absent: str, tmp_path: Path) -> None:
    assert problems(tmp_path, ENTRY) == []
    found = problems(tmp_path, changed(ENTRY, (absent, ABSENT)))
    assert [problem.wrong for problem in found if problem.field == "entry"] == ["needs outbound and exchange"]


def test_all_contradictions_are_told_at_once(tmp_path: Path) -> None:
    worst = changed(
        AGENT,
        ("inbound.routes.0.may_call", ["mail"]),
        ("outbound.listen", "0.0.0.0:7080"),
        ("deny", [{}]),
        ("identity", {}),
        ("typo", 1),
    )
    fields = {problem.field for problem in problems(tmp_path, worst)}
    assert fields >= {
        "inbound.routes[0].may_call",
        "outbound.listen",
        "deny[0]",
        "identity.workload_api",
        "typo",
    }


def test_a_missing_key_hides_no_path_and_no_method(tmp_path: Path) -> None:
    match = {"path": "/a/../b", "methods": ["get"]}
    worst = changed(AGENT, ("inbound.routes.0.match", match), ("inbound.routes.0.name", ABSENT))
    found = problems(tmp_path, worst)
    assert {problem.field for problem in found} == {
        "inbound.routes[0].name",
        "inbound.routes[0].match.path",
        "inbound.routes[0].match.methods[0]",
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param([("protocols", {"agent": "h2c"})], "protocols.agent", id="the-agent"),
        pytest.param([("inbound.agent_grpc", "http://127.0.0.1:50051")], "inbound.agent_grpc", id="its-port-for-grpc"),
        pytest.param([("outbound.routes", crm(http_version="2"))], "outbound.routes[0].http_version", id="a-next-hop"),
    ],
)
def test_http2_behind_the_sidecar_needs_the_one_setting_that_turns_it_on(
    tmp_path: Path, change: list[tuple[str, Any]], field: str
) -> None:
    (problem,) = problems(tmp_path, changed(AGENT, *change))
    assert (problem.field, problem.wrong) == (field, "needs HTTP/2, which is off")
    on = [
        ("protocols", {"http2": True, **dict(change).get("protocols", {})}),
        *[c for c in change if c[0] != "protocols"],
    ]
    assert problems(tmp_path, changed(AGENT, *on)) == []


@pytest.mark.parametrize(
    ("agent", "wrong"),
    [
        ("http://10.0.0.1:50051", "is not plain http on loopback"),
        ("https://127.0.0.1:50051", "is not plain http on loopback"),
        ("http://127.0.0.1", "has no port"),
        ("http://127.0.0.1:7443", "is the sidecar's own inbound.listen"),
    ],
)
def test_the_agents_port_for_grpc_is_plain_on_loopback_and_not_ours(tmp_path: Path, agent: str, wrong: str) -> None:
    on = changed(AGENT, ("protocols", {"http2": True}), ("inbound.listen", "0.0.0.0:7443"))
    (problem,) = problems(tmp_path, changed(on, ("inbound.agent_grpc", agent)))
    assert (problem.field, problem.wrong) == ("inbound.agent_grpc", wrong)
    assert problems(tmp_path, changed(on, ("inbound.agent_grpc", "http://127.0.0.1:50051"))) == []
