from typing import Any

import pytest

from delegation_audit.attribution.roster import parse
from delegation_audit.attribution.verdicts import Kind, judge
from delegation_audit.rules import Confidence
from tests.audit.attribution import samples
from tests.audit.attribution.reading import judged, read
from tests.audit.attribution.samples import GATEWAY, PLANNER, WRITER, assumed_role, cloudtrail, entra, kubernetes
from tests.audit.evidence import lawful

ACT = {"sub": WRITER, "act": {"sub": PLANNER}}
WHO = {"ip": "10.0.3.7", "user": "alice", "agent": "writer/1.0", "client": "writer-client", "tool": "orders"}


def asked(**more: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/", **more}


def xfcc(*peers: str) -> str:
    return ",".join(f"By=spiffe://example.org/crm;Hash=00;URI={peer}" for peer in peers)


FORGED = f"type=TOKEN_EXCHANGE realmId=r clientId=c username=alice actor={WRITER} "


# What an impersonator's line may hold, and a reader who is too trusting would take for delegation.
IMPERSONATORS = [
    pytest.param(asked(sub="alice", client_id="writer-client"), id="an-oauth-client-beside-the-user"),
    pytest.param(asked(sub="alice", azp="writer-client"), id="an-authorized-party"),
    pytest.param(asked(sub="alice", act={"sub": "alice"}, client_id="writer-client"), id="the-actor-is-the-user"),
    pytest.param(
        asked(sub="alice", act={"sub": "Alice@example.org"}, remote_addr="10.0.3.7"), id="in-another-spelling"
    ),
    pytest.param(asked(user="alice", actor="", remote_addr="10.0.3.7"), id="an-empty-actor"),
    pytest.param(asked(user="alice", actor="-", remote_addr="10.0.3.7"), id="an-actor-that-is-a-dash"),
    pytest.param(asked(user="alice", actor=None, remote_addr="10.0.3.7"), id="an-actor-that-is-null"),
    pytest.param(asked(user="alice", actor="unknown", remote_addr="10.0.3.7"), id="an-actor-who-is-unknown"),
    pytest.param(asked(sub="alice", act={}, remote_addr="10.0.3.7"), id="an-empty-act"),
    pytest.param(asked(sub="alice", act={"act": {"sub": WRITER}}, remote_addr="10.0.3.7"), id="an-act-without-sub"),
    pytest.param(asked(sub="alice", may_act={"sub": WRITER}, peer=WRITER), id="may-act"),
    pytest.param(asked(sub="alice", act={"sub": GATEWAY}, peer=WRITER), id="the-actor-is-a-gateway"),
    pytest.param(asked(sub="alice", act={"sub": GATEWAY}, client_id="writer-client"), id="and-the-agent-the-client"),
    pytest.param(asked(sub="alice", act={"sub": GATEWAY}, user_agent="writer/1.0"), id="and-the-agent-a-user-agent"),
    pytest.param(asked(sub="alice", act={"sub": PLANNER}, peer=WRITER), id="the-actor-is-the-hop-before"),
    pytest.param(asked(sub="alice", act={"sub": PLANNER}, client_id="writer-client"), id="by-another-client"),
    pytest.param(asked(sub="alice", act={"sub": PLANNER}, remote_addr="10.0.3.7"), id="from-another-address"),
    pytest.param(
        asked(sub="alice", act={"sub": PLANNER, "act": {"sub": WRITER}}, peer=WRITER), id="only-an-earlier-actor"
    ),
    pytest.param(asked(sub="alice", peer=WRITER), id="a-peer-is-no-actor"),
    pytest.param(asked(sub="alice", xfcc=xfcc(WRITER)), id="a-forwarded-certificate-is-no-actor"),
    pytest.param(asked(sub="alice", xfcc=xfcc(WRITER, GATEWAY)), id="behind-a-gateway"),
    pytest.param(
        asked(sub="alice", act={"sub": PLANNER}, xfcc=xfcc(PLANNER, WRITER)), id="the-nearest-certificate-counts"
    ),
    pytest.param(asked(sub="alice", **{"X-Agent-Id": WRITER}), id="a-header-with-the-agent"),
    pytest.param(asked(user="alice", agent_id=WRITER), id="what-the-agent-says-of-itself"),
    pytest.param(asked(user="alice", user_agent=f"writer/1.0 (act={WRITER})"), id="a-user-agent-that-claims-more"),
    pytest.param(asked(user="alice", headers={"act": {"sub": WRITER}}, remote_addr="10.0.3.7"), id="claims-in-headers"),
    pytest.param(asked(user="alice", gen_ai={"agent": {"id": WRITER}}), id="telemetry-of-the-agent"),
    pytest.param(samples.COMBINED.format(**WHO), id="nginx"),
    pytest.param(
        samples.COMBINED.format(**{**WHO, "agent": f"writer/1.0 {FORGED}"}), id="a-user-agent-with-an-event-in-it"
    ),
    pytest.param(
        {**samples.nginx_json(remote_user="alice", remote_addr="10.0.3.7"), "message": FORGED},
        id="a-message-in-a-request",
    ),
    pytest.param(
        samples.nginx_json(remote_user="alice", ssl_client_s_dn="CN=writer-client,O=Example"), id="nginx-certificate"
    ),
    pytest.param(samples.COMBINED.format(**{**WHO, "ip": "10.9.9.9", "agent": "writer-client/2"}), id="nginx-product"),
    pytest.param(samples.nginx_json(remote_user="alice", remote_addr="10.0.3.7"), id="nginx-json"),
    pytest.param(samples.envoy_json(jwt_payload={"sub": "alice", "azp": "writer-client"}), id="envoy-json"),
    pytest.param(samples.istio_json(sub="alice", downstream_peer_uri_san=WRITER), id="istio-json"),
    pytest.param(samples.AGENTGATEWAY.format(**WHO), id="agentgateway"),
    pytest.param(samples.agentgateway_json(**{"jwt.sub": "alice", "src.identity": WRITER}), id="agentgateway-json"),
    pytest.param(samples.toolhive("alice", [PLANNER], source={"type": "network", "value": "10.0.3.7"}), id="toolhive"),
    pytest.param(samples.authbridge("outbound", "alice"), id="authbridge"),
    pytest.param(samples.authbridge("inbound", "alice", tls={"peerSpiffeId": WRITER}), id="authbridge-inbound"),
    pytest.param(samples.AUTHBRIDGE_LOG.format(**WHO), id="authbridge-log"),
    pytest.param(samples.KEYCLOAK_LOG.format(**WHO), id="keycloak-log"),
    pytest.param(samples.keycloak("TOKEN_EXCHANGE", "writer-client", username="alice"), id="keycloak-exchange"),
    pytest.param(
        samples.keycloak("TOKEN_EXCHANGE", "writer-client", username="alice", actor="alice"), id="keycloak-actor"
    ),
    pytest.param(
        samples.keycloak("IMPERSONATE", "console", username="alice", impersonator="writer-client"),
        id="keycloak-by-role",
    ),
    pytest.param(samples.CEF.format(**WHO), id="cef-act-is-the-action"),
    pytest.param(kubernetes("alice", userAgent="writer/1.0"), id="kubernetes-with-a-persons-key"),
    pytest.param(kubernetes("alice", impersonatedUser={"username": "alice"}, sourceIPs=["10.0.3.7"]), id="as-oneself"),
    pytest.param(
        kubernetes("bob", impersonatedUser={"username": "alice"}, userAgent="writer/1"), id="a-person-as-another"
    ),
    pytest.param(cloudtrail(samples.iam_user("alice"), sourceIPAddress="10.0.3.7"), id="aws-with-a-persons-key"),
    pytest.param(
        cloudtrail(assumed_role("Admin", "writer"), userAgent="writer/1.0"), id="aws-a-session-name-is-chosen"
    ),
    pytest.param(entra(appDisplayName="writer-client"), id="entra-an-ordinary-app"),
    pytest.param(entra(agent={"agentType": "notAgentic"}, appDisplayName="writer-client"), id="entra-no-agent"),
    pytest.param(
        entra(appDisplayName="crm-portal", ipAddress="10.0.3.7", userAgent="writer/1"), id="entra-a-front-app"
    ),
]


@pytest.mark.parametrize("line", IMPERSONATORS)
def test_an_impersonator_is_called_one_whatever_else_the_line_holds(line: dict[str, Any] | str) -> None:
    found = judged(line)
    assert (found.kind, found.agent) == (Kind.IMPERSONATES, "writer")
    assert found.fields


@pytest.mark.parametrize("line", IMPERSONATORS)
def test_without_a_list_no_impersonator_is_called_an_agent_that_delegates(line: dict[str, Any] | str) -> None:
    found = judged(line, listed=False)
    # An act that names another party beside nothing that contradicts it is that party's, never the writer's.
    assert found.kind is Kind.CANNOT_TELL or "writer" not in found.agent


DELEGATES = [
    pytest.param(asked(sub="alice", act=ACT), id="claims"),
    pytest.param(asked(sub="alice", act=ACT, peer=WRITER), id="claims-and-the-same-peer"),
    pytest.param(asked(sub="alice", act=ACT, xfcc=xfcc(WRITER, GATEWAY)), id="through-a-gateway"),
    pytest.param(asked(sub="alice", act=ACT, client_id="front-app"), id="a-front-app-got-the-token"),
    pytest.param(asked(user="alice", actor="writer-client"), id="a-log-of-its-own"),
    pytest.param(samples.envoy_json(jwt_payload={"sub": "alice", "act": ACT}), id="envoy-metadata-with-nested-act"),
    pytest.param(samples.agentgateway_json(**{"jwt.sub": "alice", "jwt.act": ACT}), id="agentgateway-json"),
    pytest.param(samples.toolhive("alice", [WRITER, PLANNER]), id="toolhive"),
    pytest.param(
        samples.keycloak("TOKEN_EXCHANGE", "c", username="alice", actor="service-account-writer-client"), id="keycloak"
    ),
    pytest.param(samples.KEYCLOAK_LOG.format(**WHO) + ', actor="writer-client"', id="keycloak-log"),
    pytest.param(
        kubernetes("system:serviceaccount:shop:writer", impersonatedUser={"username": "alice"}), id="kubernetes"
    ),
    pytest.param(cloudtrail(assumed_role("writer", "s1", sourceIdentity="alice")), id="aws-source-identity"),
    pytest.param(cloudtrail({**assumed_role("writer", "s1"), "onBehalfOf": {"userId": "u1"}}), id="aws-on-behalf-of"),
    pytest.param(entra(agent={"agentType": "agenticAppInstance"}, appDisplayName="writer-client"), id="entra"),
    pytest.param(
        entra(agent='{"agentType":"agenticAppInstance"}', appDisplayName="writer-client"), id="entra-from-log-analytics"
    ),
    pytest.param(samples.CEF.format(**WHO) + f" cs1Label=actor cs1={WRITER}", id="cef-custom-string"),
]


@pytest.mark.parametrize("line", DELEGATES)
def test_an_agent_named_as_the_actor_beside_the_user_delegates(line: dict[str, Any] | str) -> None:
    found = judged(line)
    assert (found.kind, found.agent) == (Kind.DELEGATES, "writer")
    person = isinstance(line, dict) and "eventVersion" in line  # a role may be a person's
    assert judged(line, listed=False).kind is (Kind.CANNOT_TELL if person else Kind.DELEGATES)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(samples.ENVOY.format(**WHO), "the format shows no user", id="envoy"),
        pytest.param(samples.ISTIO.format(**WHO), "the format shows no user", id="istio"),
        pytest.param(samples.HAPROXY.format(**WHO), "the format shows no user", id="haproxy"),
        pytest.param(samples.COMBINED.format(**{**WHO, "user": "-"}), "no user is named", id="nginx-without-a-user"),
        pytest.param(
            samples.AGENTGATEWAY.format(**{**WHO, "ip": "10.9.9.9", "tool": f"orders jwt.act.sub={WRITER}"}),
            "the field of the actor can be forged",
            id="a-tools-name-writes-the-actor",
        ),
        pytest.param(
            asked(sub="alice", act=ACT, actor=PLANNER, peer=WRITER),
            "two fields name different actors",
            id="two-different-actors",
        ),
        pytest.param(
            asked(sub="alice", act=ACT, actor=GATEWAY), "two fields name different actors", id="one-of-them-unknown"
        ),
        pytest.param(
            asked(sub="alice", act={"sub": PLANNER}, agent_id=WRITER),
            "the actor named is another agent",
            id="forgeable",
        ),
        pytest.param(
            {**samples.toolhive("alice", [WRITER]), "delegation": {"chain": [{"sub": WRITER}], "malformed": True}},
            "the field of the actor can be forged",
            id="a-malformed-chain",
        ),
        pytest.param(
            kubernetes("system:serviceaccount:shop:default", userAgent="writer/1.0"),
            "a workload is named that is not on the list of agents",
            id="a-workload-that-is-not-listed",
        ),
    ],
)
def test_what_a_line_does_not_show_cannot_be_told(line: dict[str, Any] | str, reason: str) -> None:
    found = judged(line)
    assert (found.kind, found.agent, found.reason, found.confidence) == (
        Kind.CANNOT_TELL,
        "writer",
        reason,
        Confidence.LOW,
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(asked(sub=WRITER, act={"sub": WRITER}), id="a-workload-that-acts-for-itself"),
        pytest.param(asked(sub=WRITER), id="a-workload"),
        pytest.param(kubernetes("system:serviceaccount:shop:writer"), id="a-service-account"),
        pytest.param(
            cloudtrail(assumed_role("writer", "alice@example.org")), id="a-role-whatever-its-session-is-called"
        ),
        pytest.param(
            samples.keycloak("CLIENT_LOGIN", "writer-client", username="service-account-writer-client"), id="keycloak"
        ),
        pytest.param(
            entra(
                userPrincipalName="", userId="", appDisplayName="writer-client", signInEventTypes=["servicePrincipal"]
            ),
            id="a-service-principal",
        ),
        pytest.param(
            entra(appDisplayName="writer-client", agent={"agentSubjectType": "agentIDuser"}),
            id="an-agents-user-account",
        ),
    ],
)
def test_an_agent_that_is_the_only_principal_has_its_own_authority(line: dict[str, Any]) -> None:
    found = judged(line)
    assert (found.kind, found.agent) == (Kind.OWN_AUTHORITY, "writer")


def test_an_agent_that_presents_another_agents_identity_impersonates_it() -> None:
    found = judged(asked(sub=PLANNER, peer=WRITER))
    assert (found.kind, found.agent) == (Kind.IMPERSONATES, "writer")


# Lists without names: several entries may be one agent.
UNNAMED = "spiffe://example.org/agent/writer\nspiffe://example.org/agent/planner\nwriter-client\nreader-client\n10.0.3.0/24\n10.0.4.1\ncurl/*"


@pytest.mark.parametrize(
    ("line", "kind", "agent"),
    [
        pytest.param(asked(sub="alice", act=ACT, client_id="app"), Kind.DELEGATES, WRITER, id="nothing-against-it"),
        pytest.param(
            asked(sub="alice", act=ACT, remote_addr="10.0.3.7"), Kind.DELEGATES, WRITER, id="a-network-of-agents"
        ),
        pytest.param(asked(sub="alice", act=ACT, user_agent="curl/8"), Kind.DELEGATES, WRITER, id="a-product-of-many"),
        pytest.param(asked(sub="alice", act=ACT, actor="writer-client"), Kind.DELEGATES, WRITER, id="two-names-alike"),
        pytest.param(
            asked(sub="alice", act=ACT, client_id="writer-client"),
            Kind.CANNOT_TELL,
            "writer-client",
            id="alike-is-no-proof",
        ),
        pytest.param(
            asked(sub="alice", act=ACT, remote_addr="10.0.4.1"), Kind.CANNOT_TELL, "10.0.4.1", id="one-address"
        ),
        pytest.param(
            asked(sub="alice", act=ACT, client_id="reader-client"),
            Kind.IMPERSONATES,
            "reader-client",
            id="another-client",
        ),
        pytest.param(asked(sub="alice", act=ACT, peer=PLANNER), Kind.IMPERSONATES, PLANNER, id="another-peer"),
        pytest.param(asked(sub="alice", remote_addr="10.0.3.7"), Kind.IMPERSONATES, "10.0.3.0/24", id="only-the-user"),
        pytest.param(asked(sub="writer-client", peer=WRITER), Kind.OWN_AUTHORITY, "writer-client", id="its-own"),
        pytest.param(asked(sub="reader-client", peer=WRITER), Kind.IMPERSONATES, WRITER, id="another-agents-identity"),
    ],
)
def test_entries_without_names_may_be_one_agent(line: dict[str, Any], kind: Kind, agent: str) -> None:
    found = judge(read(line), parse(UNNAMED))
    assert (found.kind, found.agent) == (kind, agent)


def test_an_agent_that_acts_for_another_delegates() -> None:
    found = judged(asked(sub=PLANNER, act={"sub": WRITER}))
    assert (found.kind, found.agent) == (Kind.DELEGATES, "writer")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(asked(user="alice", user_agent="Mozilla/5.0", remote_addr="10.9.9.9"), id="a-person"),
        pytest.param(asked(sub="alice", azp="portal", peer=GATEWAY), id="a-person-through-an-app-and-a-gateway"),
        pytest.param(asked(user="alice", actor="bob"), id="a-person-for-another"),
        pytest.param(kubernetes("system:serviceaccount:kube-system:node-controller"), id="a-workload-that-is-no-agent"),
    ],
)
def test_a_request_without_an_agent_is_set_aside(line: dict[str, Any]) -> None:
    assert judged(line).kind is Kind.NO_AGENT


@pytest.mark.parametrize(
    ("line", "confidence"),
    [
        (asked(sub="alice", peer=WRITER), Confidence.HIGH),
        (asked(sub="alice", client_id="writer-client"), Confidence.MEDIUM),
        (asked(sub="alice", remote_addr="10.0.3.7"), Confidence.MEDIUM),
        (asked(sub="alice", user_agent="writer/1.0"), Confidence.LOW),
        (asked(sub="alice", agent_id=WRITER), Confidence.LOW),
        (asked(sub="alice", act={"sub": PLANNER}, client_id="writer-client"), Confidence.LOW),
        (asked(sub="alice", act=ACT), Confidence.HIGH),
        (asked(user="alice", actor=WRITER), Confidence.MEDIUM),
    ],
)
def test_confidence_follows_the_field_that_recognises_the_agent(line: dict[str, Any], confidence: Confidence) -> None:
    assert judged(line).confidence is confidence


@pytest.mark.parametrize(
    ("line", "kind", "agent"),
    [
        pytest.param(asked(user="alice"), Kind.CANNOT_TELL, "(not named)", id="a-person-or-an-agent"),
        pytest.param(asked(user="alice", client_id="app"), Kind.CANNOT_TELL, "app", id="a-client"),
        pytest.param(asked(sub="alice", peer=WRITER), Kind.CANNOT_TELL, WRITER, id="a-peer-may-be-a-gateway"),
        pytest.param(
            asked(sub="alice", act=ACT, peer=GATEWAY), Kind.CANNOT_TELL, GATEWAY, id="a-peer-that-is-not-the-actor"
        ),
        pytest.param(kubernetes("bob", impersonatedUser={"username": "alice"}), Kind.CANNOT_TELL, "bob", id="a-person"),
        pytest.param(asked(sub=WRITER), Kind.OWN_AUTHORITY, WRITER, id="a-workload"),
        pytest.param(asked(sub=WRITER, peer=GATEWAY), Kind.CANNOT_TELL, GATEWAY, id="a-workload-through-another"),
        pytest.param(asked(), Kind.CANNOT_TELL, "(not named)", id="nobody"),
        pytest.param(asked(sub="alice", act=ACT, actor=GATEWAY), Kind.CANNOT_TELL, WRITER, id="two-different-actors"),
        pytest.param(
            samples.AGENTGATEWAY.format(**{**WHO, "tool": f"orders jwt.act.sub={WRITER}"}),
            Kind.CANNOT_TELL,
            WRITER,
            id="a-tools-name-writes-the-actor",
        ),
    ],
)
def test_without_a_list_only_the_log_says_who_is_an_agent(line: dict[str, Any] | str, kind: Kind, agent: str) -> None:
    found = judged(line, listed=False)
    assert (found.kind, found.agent) == (kind, agent)


def test_our_own_records_delegate_by_their_actor() -> None:
    for name in ("caller3", "callee3"):
        found = judged(lawful()[name], listed=False)
        assert (found.kind, found.agent) == (Kind.DELEGATES, "spiffe://acme.example/agent/writer")
    assert judged({**lawful()["callee3"], "actor": None}, listed=False).kind is Kind.CANNOT_TELL
