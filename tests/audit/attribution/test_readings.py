from typing import Any

import pytest

from delegation_audit.attribution.mapping_files import load_shipped
from delegation_audit.attribution.readings import Fields, Party, Reader, Reading, same_party
from delegation_audit.attribution.recognition import Recogniser
from tests.audit.attribution.reading import read, recognised
from tests.audit.attribution.samples import (
    GATEWAY,
    PLANNER,
    WRITER,
    assumed_role,
    cloudtrail,
    entra,
    envoy_json,
    keycloak,
    kubernetes,
    text,
    toolhive,
)

ACT = {"sub": WRITER, "act": {"sub": PLANNER}}


def names(parties: tuple[Party, ...]) -> list[str]:
    return [party.shown for party in parties]


def asked(**more: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/", **more}


@pytest.mark.parametrize(
    ("line", "users", "actors", "clients"),
    [
        pytest.param({"user": "alice"}, ["alice"], [], [], id="user"),
        pytest.param({"user_id": 42}, ["42"], [], [], id="a-number"),
        pytest.param({"user": "-"}, [], [], [], id="a-dash-is-nobody"),
        pytest.param({"user": "", "sub": None}, [], [], [], id="empty-is-nobody"),
        pytest.param({"User": "alice"}, ["alice"], [], [], id="whatever-the-case"),
        pytest.param({"user": {"name": "alice"}}, ["alice"], [], [], id="nested"),
        pytest.param({"sub": "alice", "act": ACT}, ["alice"], [WRITER], [], id="claims"),
        pytest.param({"jwt_payload": {"sub": "alice", "act": ACT}}, ["alice"], [WRITER], [], id="claims-in-an-object"),
        pytest.param({"jwt_payload": '{"sub":"alice","act":{"sub":"w"}}'}, ["alice"], ["w"], [], id="claims-as-text"),
        pytest.param({"sub": "alice", "act": {"act": {"sub": "w"}}}, ["alice"], [], [], id="an-earlier-actor-alone"),
        pytest.param({"sub": "alice", "act": {}}, ["alice"], [], [], id="an-empty-act"),
        pytest.param({"sub": "alice", "may_act": {"sub": WRITER}}, ["alice"], [], [], id="may-act-is-no-act"),
        pytest.param(
            {"sub": "alice", "headers": {"act": {"sub": WRITER}}}, ["alice"], [], [], id="a-header-is-no-claim"
        ),
        pytest.param({"user": "alice", "actor": "w"}, ["alice"], ["w"], [], id="actor"),
        pytest.param({"user": "alice", "actor": "alice"}, ["alice"], [], [], id="the-user-again"),
        pytest.param({"user": "alice", "agent_id": "w"}, ["alice"], [], [], id="what-an-agent-says-of-itself"),
        pytest.param({"user": "alice", "user_agent": "w"}, ["alice"], [], [], id="a-user-agent"),
        pytest.param({"user": "alice", "client_id": "app"}, ["alice"], [], ["app"], id="a-client-is-no-actor"),
        pytest.param({"user": "alice", "client": "10.0.0.1"}, ["alice"], [], [], id="an-address-is-no-client"),
        pytest.param({"user": {"id": "w", "effective": {"id": "alice"}}}, ["alice"], ["w"], [], id="ecs"),
        pytest.param({"auth": "Bearer eyJhbGciOi", "user": "eyJhbGciOi"}, [], [], [], id="a-credential-is-no-name"),
    ],
)
def test_json_names_by_the_fields_that_are_known(
    line: dict[str, Any], users: list[str], actors: list[str], clients: list[str]
) -> None:
    found = read(asked(**line))
    assert (names(found.users), names(found.actors), names(found.clients)) == (users, actors, clients)


@pytest.mark.parametrize(
    ("line", "users", "actors"),
    [
        pytest.param(kubernetes("sa", impersonatedUser={"username": "alice"}), ["alice"], ["sa"], id="kubernetes"),
        pytest.param(kubernetes("alice", impersonatedUser={"username": "alice"}), ["alice"], [], id="oneself"),
        pytest.param(
            cloudtrail(assumed_role("writer", "s1", sourceIdentity="alice")),
            ["alice"],
            ["arn:aws:sts::111122223333:assumed-role/writer/s1"],
            id="source-identity",
        ),
        pytest.param(
            cloudtrail({**assumed_role("writer", "s1"), "onBehalfOf": {"userId": "u1", "identityStoreArn": "a"}}),
            ["u1"],
            ["arn:aws:sts::111122223333:assumed-role/writer/s1"],
            id="on-behalf-of",
        ),
        pytest.param(
            cloudtrail({"type": "AWSService", "invokedBy": "backup.amazonaws.com"}),
            ["backup.amazonaws.com"],
            [],
            id="a-service",
        ),
        pytest.param(
            entra(agent={"agentType": "agenticAppInstance"}),
            ["alice@example.org"],
            ["crm-portal"],
            id="an-agent-identity",
        ),
        pytest.param(entra(agent={"agentType": "notAgentic"}), ["alice@example.org"], [], id="an-ordinary-app"),
        pytest.param(
            entra(userPrincipalName="", userId="", servicePrincipalId="p1", signInEventTypes=["servicePrincipal"]),
            ["crm-portal"],
            [],
            id="a-service-principal",
        ),
        pytest.param(keycloak("TOKEN_EXCHANGE", "c", username="alice", actor="w"), ["alice"], ["w"], id="keycloak"),
        pytest.param(keycloak("CLIENT_LOGIN", "c", username="service-account-c"), ["c"], [], id="a-client-for-itself"),
        pytest.param(toolhive("alice", [WRITER, PLANNER]), ["alice"], [WRITER], id="toolhive"),
    ],
)
def test_a_platform_names_the_actor_in_its_own_way(line: dict[str, Any], users: list[str], actors: list[str]) -> None:
    found = read(line)
    assert (names(found.users), names(found.actors)) == (users, actors)


def test_the_nearest_certificate_and_address_come_first() -> None:
    found = read(
        envoy_json(
            **{
                "x-forwarded-client-cert": f'By=a;URI={PLANNER},By=b;Hash=c;URI="{WRITER}",By=d;URI={GATEWAY}',
                "x-forwarded-for": "10.0.0.1, 10.0.0.2",
            }
        )
    )
    assert names(found.peers) == [GATEWAY, WRITER, PLANNER]
    assert names(found.addresses)[-2:] == ["10.0.0.2", "10.0.0.1"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("alice", "ALICE", True),
        ("alice", "alice@example.org", True),
        ("acct:alice@example.org", "alice@example.org", True),
        ("EXAMPLE\\alice", "alice", True),
        ("alice@a.example", "alice@b.example", False),
        ("alice", "alice2", False),
        (WRITER, PLANNER, False),
    ],
)
def test_an_actor_in_another_spelling_is_still_the_user(one: str, other: str, same: bool) -> None:
    assert same_party(Party(("a",), (one,)), Party(("b",), ("x", other))) is same


@pytest.mark.parametrize("method", ["GET /a?k=secret", "eyJ" + "a" * 40])
def test_what_is_no_method_is_not_repeated(method: str) -> None:
    assert read({"user": "alice", "method": method, "path": "https://bob:secret@h/b?k=secret"}).request == "https://h/b"


def chosen(line: dict[str, Any], fields: Fields) -> Reading | None:
    (found,) = Recogniser([Reader(mapping, fields) for mapping in load_shipped()]).recognise(text(line).encode())
    return found.reading


def test_the_operators_fields_count_and_count_first() -> None:
    fields = Fields(user=["who"], actor=["app.name"])
    found = chosen({"who": "alice", "App": {"Name": "w"}, "user": "proxy", "user.effective.id": "x"}, fields)
    assert found is not None
    assert (names(found.users), names(found.actors)) == (["alice"], ["w"])
    assert chosen({"level": "info", "user": "alice"}, fields) is None


def test_a_refusal_is_told_by_status_or_by_the_format() -> None:
    assert read(asked(user="alice", status=403)).refused
    assert not read(asked(user="alice", status=200)).refused
    assert read(keycloak("TOKEN_EXCHANGE_ERROR", "c")).refused


def test_claims_that_contradict_each_other_are_not_understood() -> None:
    line = asked(**{"jwt_payload": '{"act":{"sub":"a"}}', "jwt_payload.act.sub": "b"})
    assert recognised(line).format is None
