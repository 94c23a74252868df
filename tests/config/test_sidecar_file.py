from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from delegation_core.human import Human
from delegation_core.profile import ActorForm
from delegation_core.profile_presets import PRESETS
from delegation_core.route import Upstream
from delegation_core.spiffe_id import SpiffeId
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.settings import SidecarSettings
from sidecar.exchange.countersigner import CountersignSettings
from sidecar.features.outside.agent_key import AgentKeySettings
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.observe.sink import FileSink, StdoutSink
from sidecar.proxy.journeys.bypass import ListenerRule, ListeningSocket
from sidecar.wire.resolver import ResolverSettings
from tests.config.documents import ABSENT, EXAMPLES, changed, example, problems, written

STS = "https://sts.acme.example"


def load(folder: Path, name: str, *changes: tuple[str, object]) -> SidecarSettings:
    return load_sidecar(written(folder, changed(example(name), *changes)), {})


def test_every_room_gets_its_settings() -> None:
    settings = load_sidecar(EXAMPLES / "agent.yaml", {})
    assert settings.identity == WorkloadApiSettings(address="unix:///spiffe-workload-api/spire-agent.sock")
    assert settings.inbound is not None
    assert settings.inbound.agent == Upstream(scheme="http", host="127.0.0.1", port=8080)
    assert str(settings.inbound.listen) == "0.0.0.0:7443"
    assert settings.outbound is not None
    assert str(settings.outbound.listen) == "127.0.0.1:7080"
    assert str(settings.probe) == "127.0.0.1:7090"
    route = settings.inbound_routes.find("POST", "/search")
    assert (route.name, route.issuers, route.may_call, route.max_calls) == (
        "search",
        frozenset({STS}),
        frozenset({"crm"}),
        16,
    )
    (crm,) = settings.outbound_routes.routes
    assert (crm.upstream.port, crm.peer) == (7443, SpiffeId("spiffe://acme.example/tool/crm"))
    assert crm.scopes == {"crm.read"}
    (exchange,) = settings.exchanges
    assert exchange.token_endpoint == f"{STS}/token"
    assert settings.entry is None
    assert isinstance(settings.records.open_sink(), StdoutSink)


@pytest.mark.parametrize(("changes", "one"), [([], False), ([("inbound.subjects_at_once", 1)], True)])
def test_an_agent_serves_one_subject_at_a_time_where_the_file_says_so(
    tmp_path: Path,
    changes: list[tuple[str, object]],
    one: bool,
) -> None:
    settings = load(tmp_path, "agent", *changes)
    assert settings.inbound is not None
    assert settings.inbound.one_subject is one


def test_a_running_sidecar_cannot_begin_to_serve_one_subject_at_a_time_but_may_ask_for_a_fresh_login(
    tmp_path: Path,
) -> None:
    running = load(tmp_path, "agent")
    one = load(tmp_path, "agent", ("inbound.subjects_at_once", 1))
    assert [problem.field for problem in running.needs_restart(one)] == ["inbound"]
    assert [problem.field for problem in one.needs_restart(running)] == ["inbound"]
    assert running.needs_restart(load(tmp_path, "agent", ("inbound.routes.0.human", {"max_age_s": 60}))) == []


def test_the_addresses_of_the_agent_may_change_while_a_sidecar_runs(tmp_path: Path) -> None:
    http2 = ("protocols", {"http2": True})
    running = load(tmp_path, "agent", http2)
    moved = load(tmp_path, "agent", http2, ("inbound.agent_grpc", "http://127.0.0.1:50051"))
    assert moved.inbound is not None
    assert moved.inbound.agent_grpc == Upstream(scheme="http", host="127.0.0.1", port=50051)
    assert moved.listener_rule is not None
    assert moved.listener_rule.agent_grpc_port == 50051
    assert running.needs_restart(moved) == moved.needs_restart(running) == []


def test_the_key_that_an_agent_expects_is_known_from_the_start(tmp_path: Path) -> None:
    section = {"file": "/run/keys/agent", "field": "authorization", "scheme": "Bearer"}
    running, other = load(tmp_path, "agent"), load(tmp_path, "agent", ("inbound.agent_key", section))
    assert running.inbound is not None
    assert other.inbound is not None
    assert running.inbound.agent_key is None
    assert other.inbound.agent_key == AgentKeySettings("/run/keys/agent", "authorization", "Bearer ")
    assert [problem.field for problem in running.needs_restart(other)] == ["inbound"]
    bare = load(tmp_path, "agent", ("inbound.agent_key", {"file": "/run/keys/agent", "field": "x-api-key"}))
    assert bare.inbound is not None
    assert bare.inbound.agent_key == AgentKeySettings("/run/keys/agent", "x-api-key", "")
    with pytest.raises(ConfigError, match=r"inbound\.agent_key\.field"):
        load(tmp_path, "agent", ("inbound.agent_key", section | {"field": "host"}))


def test_a_route_asks_for_the_login_that_the_file_says(tmp_path: Path) -> None:
    written = {"max_age_s": 300, "acr": ["phrh", "phr"]}
    routes = load(tmp_path, "agent", ("inbound.routes.0.human", written)).inbound_routes
    assert routes.find("POST", "/search").human == Human(max_age_s=300, acr=("phrh", "phr"))
    assert load(tmp_path, "agent").inbound_routes.find("POST", "/search").human is None


@pytest.mark.parametrize(
    ("human", "field"),
    [({"max_age_s": 0}, "max_age_s"), ({"acr": ["a b"]}, "acr[0]"), ({"acr": ['"']}, "acr[0]"), ({"amr": []}, "amr")],
)
def test_no_other_login_is_taken(tmp_path: Path, human: dict[str, object], field: str) -> None:
    (problem,) = problems(tmp_path, changed(example("agent"), ("inbound.routes.0.human", human)))
    assert problem.field == f"inbound.routes[0].human.{field}"


@pytest.mark.parametrize("number", [0, 2, "1"])
def test_no_other_number_of_subjects_is_taken(tmp_path: Path, number: object) -> None:
    (problem,) = problems(tmp_path, changed(example("agent"), ("inbound.subjects_at_once", number)))
    assert problem.field == "inbound.subjects_at_once"


def test_the_token_service_need_not_be_told_twice_who_it_is() -> None:
    (keys,) = load_sidecar(EXAMPLES / "agent.yaml", {}).keys
    assert keys.peer == "spiffe://acme.example/sts"


def test_readiness_waits_for_the_issuers_that_routes_and_the_exchange_name(tmp_path: Path) -> None:
    assert load(tmp_path, "tool").needed_issuers == {STS}
    entry = load(tmp_path, "entry")
    assert entry.needed_issuers == {STS}
    assert {keys.issuer for keys in entry.keys} == {STS, "https://login.acme.example"}


def test_the_trust_domains_of_all_peers_are_known(tmp_path: Path) -> None:
    assert load_sidecar(EXAMPLES / "domains.yaml", {}).peer_trust_domains == {"acme.example", "partner.example"}
    assert load(tmp_path, "tool").peer_trust_domains == {"acme.example"}


def test_a_limit_is_passed_to_the_wire(tmp_path: Path) -> None:
    limits = {"max_body_bytes": 1024, "head_timeout_s": 2}
    settings = load(tmp_path, "agent", ("inbound.limits", limits), ("outbound.upstream_limits", {"max_idle": 3}))
    assert settings.inbound is not None
    assert (settings.inbound.limits.max_body_bytes, settings.inbound.limits.head_timeout_s) == (1024, 2)
    assert settings.outbound is not None
    assert settings.outbound.upstream_limits.max_idle == 3
    assert settings.outbound.limits.max_body_bytes != 1024


def test_how_names_are_looked_up_is_passed_to_the_wire(tmp_path: Path) -> None:
    settings = load(tmp_path, "agent", ("outbound.dns", {"cache_s": 5, "max_lookups": 2}))
    assert settings.outbound is not None
    assert settings.outbound.dns == ResolverSettings(cache_s=5, max_lookups=2)


def test_a_lookup_without_a_deadline_is_refused(tmp_path: Path) -> None:
    document = changed(example("agent"), ("outbound.dns", {"timeout_s": 0}))
    assert [problem.field for problem in problems(tmp_path, document)] == ["outbound.dns.timeout_s"]


def test_records_may_go_to_a_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "agent",
        ("records", {"sink": {"file": "/var/log/r"}}),
    )
    assert isinstance(settings.records.open_sink(), FileSink)


def test_records_are_countersigned_by_the_token_service_at_its_own_path(tmp_path: Path) -> None:
    peer = "spiffe://acme.example/sts"
    assert load(tmp_path, "agent").records.countersign is None
    settings = load(tmp_path, "agent", ("records", {"countersign": {"issuer": STS, "peer": peer}}))
    assert settings.records.countersign == CountersignSettings(
        issuer=STS, endpoint=Endpoint(url=f"{STS}/countersign", peer=SpiffeId(peer)), every_s=60.0
    )
    elsewhere = {"issuer": STS, "tls": {"ca": "/ca.pem"}, "endpoint": "https://witness.example/x", "every_s": 5.0}
    countersign = load(tmp_path, "agent", ("records", {"countersign": elsewhere})).records.countersign
    assert countersign is not None
    assert countersign.endpoint == Endpoint(url="https://witness.example/x", ca_file="/ca.pem")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"issuer": "https://other.example"}, "records.countersign.issuer"),
        ({"tls": {"ca": "/ca.pem"}}, "records.countersign.tls"),
        ({"peer": None}, "records.countersign.tls"),
        ({"endpoint": "http://sts.acme.example/countersign", "peer": None}, "records.countersign.endpoint"),
        ({"every_s": 1.0}, "records.countersign.every_s"),
    ],
)
def test_a_countersigner_that_could_not_be_believed_is_refused(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    countersign = {"issuer": STS, "peer": "spiffe://acme.example/sts", **changes}
    document = changed(example("agent"), ("records", {"countersign": countersign}))
    assert [problem.field for problem in problems(tmp_path, document)] == [field]


def test_the_deny_list_becomes_policy(tmp_path: Path) -> None:
    actor = "spiffe://acme.example/agent/writer"
    rows = [{"subject": "u", "issuer": STS}, {"subject": "v"}, {"actor": actor}, {"jti": "j"}, {"txn": "t"}]
    deny = load(tmp_path, "tool", ("deny", rows)).policy(SpiffeId("spiffe://acme.example/tool/crm"), 1).deny
    assert deny.subjects == {(STS, "u"), (None, "v")}
    assert (deny.actors, deny.jtis, deny.txns) == (frozenset({actor}), frozenset("j"), frozenset("t"))


def test_a_profile_can_be_a_preset_written_differently(tmp_path: Path) -> None:
    table = [{"iss": "https://x", "sub": "crm", "spiffe_id": "spiffe://acme.example/tool/crm"}]
    profile = {
        "preset": "spring",
        "actor": "table",
        "actor_table": table,
        "typ": [None, "application/AT+JWT"],
        "leeway_s": 5,
    }
    issuer = load(tmp_path, "tool", ("issuers.0.profile", profile)).issuers[STS]
    assert issuer.profile.actor is ActorForm.TABLE
    assert issuer.profile.actor_table == {("https://x", "crm"): "spiffe://acme.example/tool/crm"}
    assert issuer.profile.typ == {None, "at+jwt"}
    assert issuer.profile.leeway_s == 5


def test_every_member_of_a_profile_can_be_written_differently(tmp_path: Path) -> None:
    changes = {
        "actor": "act.iss+act.sub",
        "algorithms": ["ES256"],
        "required_claims": ["txn"],
        "act_iss": "https://a",
        "scope_claim": "scp",
        "scope_shape": "array",
        "max_act_depth": 2,
        "max_lifetime_s": 60,
    }
    profile = load(tmp_path, "tool", ("issuers.0.profile", {"preset": "sts", **changes})).issuers[STS].profile
    assert profile == replace(
        PRESETS["sts"],
        actor=ActorForm.ISS_SUB,
        algorithms=frozenset({"ES256"}),
        required_claims=frozenset({"iat", "jti", "client_id", "txn"}),  # the preset's stay
        act_iss="https://a",
        scope_claim="scp",
        scope_shape="array",
        max_act_depth=2,
        max_lifetime_s=60,
    )


@pytest.mark.parametrize(
    ("listen", "host"),
    [("localhost:1", "localhost"), ("[::1]:1", "::1"), ("[0:0::1]:1", "::1"), ("127.9.9.9:1", "127.9.9.9")],
)
def test_the_agents_listener_may_be_any_loopback_address(listen: str, host: str, tmp_path: Path) -> None:
    settings = load(tmp_path, "agent", ("outbound.listen", listen))
    assert settings.outbound is not None
    assert settings.outbound.listen.host == host


def test_the_token_endpoint_is_below_the_issuer_unless_it_is_named(tmp_path: Path) -> None:
    assert load(tmp_path, "agent", ("exchange.token_endpoint", ABSENT)).exchanges == load(tmp_path, "agent").exchanges


def test_a_token_service_may_have_several_endpoints(tmp_path: Path) -> None:
    urls = [f"{STS}/token", "https://sts-b.acme.example/token"]
    changes = [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", urls)]
    (exchange,) = load(tmp_path, "agent", *changes).exchanges
    assert [(one.url, one.peer) for one in exchange.token_endpoints] == [(url, exchange.peer) for url in urls]
    alone, single = changes[0], ("exchange.token_endpoints", urls[:1])
    assert (
        load(tmp_path, "agent", alone, single).exchanges
        == load(tmp_path, "agent", ("exchange.token_endpoint", urls[0])).exchanges
    )


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param([("exchange.token_endpoints", [f"{STS}/t"])], ["exchange.token_endpoint"], id="both"),
        pytest.param(
            [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", [f"{STS}/t"] * 2)],
            ["exchange.token_endpoints"],
            id="twice the same",
        ),
        pytest.param(
            [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", [])],
            ["exchange.token_endpoints"],
            id="none",
        ),
        pytest.param(
            [
                ("exchange.token_endpoint", ABSENT),
                ("exchange.token_endpoints", [f"{STS}/{name}" for name in "abcde"]),
            ],
            ["exchange.token_endpoints"],
            id="too many",
        ),
        pytest.param(
            [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", [f"{STS}/t", "http://b.example/t"])],
            ["exchange.tls"],
            id="one without TLS",
        ),
    ],
)
def test_several_endpoints_are_a_list_of_few_each_proven(
    changes: list[tuple[str, object]], fields: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "agent", *changes)
    assert [problem.field for problem in caught.value.problems] == fields


def test_an_entry_knows_its_user_issuers() -> None:
    entry = load_sidecar(EXAMPLES / "entry.yaml", {}).entry
    assert entry is not None
    user = entry.issuers["https://login.acme.example"]
    assert (user.client_id, user.subject_prefix, entry.delegation_life_s) == ("front", "acme:", 3600)
    assert user.scope_from.worth({"scope": "documents other"}) == {"docs.read"}
    assert entry.may_call == {"planner"}


def test_a_version_that_this_release_does_not_know_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("version: 2\n")
    problems = {problem.field: problem for problem in check(path, {}).problems}
    assert "write one of 1" in problems["version"].fix


@pytest.mark.parametrize(
    ("network", "environ", "pod"),
    [
        pytest.param(None, {}, False, id="on-a-machine"),
        pytest.param(None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True, id="in-kubernetes"),
        pytest.param("host", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False, id="said-otherwise"),
        pytest.param("pod", {}, True, id="in-compose"),
    ],
)
def test_the_listeners_that_count_depend_on_whose_network_it_is(
    tmp_path: Path, network: str | None, environ: dict[str, str], pod: bool
) -> None:
    changes = [("inbound.other_listeners", [15006]), *([("inbound.network", network)] if network else [])]
    settings = load_sidecar(written(tmp_path, changed(example("agent"), *changes)), environ)
    assert settings.listener_rule == ListenerRule(agent_port=8080, allowed=frozenset({15006}), pod=pod, refuse=False)


def test_the_addresses_we_listen_on_are_no_way_round(tmp_path: Path) -> None:
    settings = load(tmp_path, "agent", ("inbound.network", "pod"))
    own = frozenset(ListeningSocket(ip_address(one.host), one.port) for one in settings.listens)
    assert {one.port for one in own} == {7090, 7443, 7080}
    rule = settings.listener_rule
    assert rule is not None
    assert rule.ways_round([*own, ListeningSocket(ip_address("0.0.0.0"), 8080)], own) == [
        ListeningSocket(ip_address("0.0.0.0"), 8080)
    ]


def test_only_the_platform_has_calls_refused_for_a_way_round(tmp_path: Path) -> None:
    agent, folder = example("agent"), tmp_path / "platform"
    folder.mkdir()
    for says in (True, False):
        platform = written(folder, changed(example("platform"), ("refuse_other_listeners", says)))
        rule = load_sidecar(written(tmp_path, agent), {}, platform).listener_rule
        assert rule is not None
        assert rule.refuse is says


def test_each_route_has_the_issuer_of_its_token_service(tmp_path: Path) -> None:
    agent = example("agent")
    other = {**agent["issuers"][0], "issuer": "https://other.example", "tls": {"ca": "/etc/ca.pem"}}
    second = {**agent["outbound"]["routes"][0], "name": "b", "match": {"host": "b.mesh"}, "exchange": other["issuer"]}
    settings = load(
        tmp_path,
        "agent",
        ("issuers", [*agent["issuers"], other]),
        ("inbound.routes.0.issuers", [STS]),
        ("exchange", [agent["exchange"], {**agent["exchange"], "issuer": other["issuer"]}]),
        ("outbound.routes", [{**agent["outbound"]["routes"][0], "exchange": STS}, second]),
    )
    assert [exchange.issuer for exchange in settings.exchanges] == [STS, "https://other.example"]
    assert [route.issuer for route in settings.outbound_routes.routes] == [STS, "https://other.example"]
    assert settings.policy(SpiffeId("spiffe://acme.example/agent/writer"), 1).token_services == {
        STS,
        "https://other.example",
    }
    assert {STS, "https://other.example"} <= settings.needed_issuers
