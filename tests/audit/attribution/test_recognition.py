from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_audit.attribution.mapping_files import load
from delegation_audit.attribution.readings import Fields, Reader
from delegation_audit.attribution.recognition import Recogniser
from tests.audit.attribution import samples
from tests.audit.attribution.reading import READERS, read, recognised
from tests.audit.attribution.samples import WRITER
from tests.audit.evidence import lawful, record

WHO = {
    "ip": "10.0.3.7",
    "user": "alice",
    "agent": "writer/1.0",
    "client": "writer-client",
    "tool": "orders",
    "app": "portal",
}
FORMATS: list[tuple[str, str | dict[str, Any], str | None, str | None]] = [
    ("common-log", samples.COMMON.format(**WHO), "alice", "GET /orders"),
    ("common-log", samples.COMBINED.format(**WHO), "alice", "GET /orders"),
    ("common-log", samples.COMBINED.format(**WHO) + ' "10.1.1.1"', "alice", "GET /orders"),
    ("common-log", "www:80 " + samples.COMBINED.format(**WHO), "alice", "GET /orders"),
    ("common-log", samples.COMMON.format(**{**WHO, "user": "A. User"}), "A. User", "GET /orders"),
    ("common-log", samples.COMMON.format(**{**WHO, "user": "-"}), None, "GET /orders"),
    ("envoy", samples.ENVOY.format(**WHO), None, "GET /orders"),
    ("istio", samples.ISTIO.format(**WHO), None, "GET /orders"),
    ("haproxy", samples.HAPROXY.format(**WHO), None, "GET /orders"),
    ("haproxy", samples.HAPROXY.format(**WHO).partition("]: ")[2], None, "GET /orders"),
    ("haproxy", samples.HAPROXY.format(**WHO).replace(" {crm.example.org} {}", ""), None, "GET /orders"),
    ("agentgateway", samples.AGENTGATEWAY.format(**WHO), "alice", "POST /mcp"),
    ("agentgateway-json", samples.agentgateway_json(**{"jwt.sub": "alice"}), "alice", "POST /mcp"),
    ("keycloak-log", samples.KEYCLOAK_LOG.format(**WHO), "alice", "TOKEN_EXCHANGE crm"),
    ("keycloak", samples.keycloak("TOKEN_EXCHANGE", "writer-client", username="alice"), "alice", "TOKEN_EXCHANGE"),
    (
        "keycloak-admin",
        {"authDetails": {"clientId": "cli", "userId": "u1"}, "operationType": "UPDATE", "resourcePath": "users/1"},
        "u1",
        "UPDATE users/1",
    ),
    ("authbridge-log", samples.AUTHBRIDGE_LOG.format(**WHO), "alice", "tools/call writer.shop"),
    ("authbridge-inbound", samples.authbridge("inbound", "alice"), "alice", "tools/call crm.shop"),
    ("authbridge-outbound", samples.authbridge("outbound", "alice"), "alice", "tools/call crm.shop"),
    ("toolhive", samples.toolhive("alice"), "alice", "POST /messages"),
    ("kubernetes-audit", samples.kubernetes("alice"), "alice", "list /api/v1/namespaces/shop/pods"),
    ("cloudtrail", samples.cloudtrail(samples.iam_user("alice")), "alice", "GetObject s3.amazonaws.com"),
    ("entra", samples.entra(), "alice@example.org", "nonInteractiveUser Microsoft Graph"),
    (
        "entra",
        {"time": "t", "category": "NonInteractiveUserSignInLogs", "properties": samples.entra()},
        "alice@example.org",
        "NonInteractiveUserSignInLogs Microsoft Graph",
    ),
    ("envoy-json", samples.envoy_json(jwt_payload={"sub": "alice"}), "alice", "GET /orders"),
    ("istio-json", samples.istio_json(), None, "GET /orders"),
    ("nginx-json", samples.nginx_json(remote_user="alice"), "alice", "GET /orders"),
    ("cef", samples.CEF.format(**WHO), "alice", "GET https://crm.example.org/orders"),
    ("json", {"sub": "alice", "method": "GET", "path": "/orders?k=secret"}, "alice", "GET /orders"),
    ("sidecar", lawful()["callee3"], "alice", "GET /x"),
]


@pytest.mark.parametrize(
    ("name", "line", "user", "request_"), FORMATS, ids=[f"{number}-{one[0]}" for number, one in enumerate(FORMATS)]
)
def test_every_default_format_is_recognised_and_read(
    name: str, line: str | dict[str, Any], user: str | None, request_: str
) -> None:
    assert recognised(line).format == name
    found = read(line)
    assert (found.users[0].shown if found.users else None) == user
    assert found.request == request_


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param("Nov 28 10:00:00 web1 nginx: {}", id="syslog"),
        pytest.param("<134>Nov  8 10:00:00 web1 nginx[7]: {}", id="syslog-with-priority"),
        pytest.param("<134>1 2026-11-28T10:00:00.1Z web1 nginx 7 - - {}", id="syslog-of-rfc-5424"),
        pytest.param("2026-11-28T10:00:00.123456789Z stdout F {}", id="cri"),
        pytest.param("web-1  | {}", id="compose"),
        pytest.param("[pod/web-7d9/nginx] {}", id="kubectl-with-prefix"),
        pytest.param("data: {}", id="server-sent-event"),
    ],
)
@pytest.mark.parametrize("line", [samples.COMBINED.format(**WHO), samples.text(samples.kubernetes("alice"))])
def test_what_a_collector_puts_in_front_is_taken_off(wrapped: str, line: str) -> None:
    assert recognised(wrapped.replace("{}", line)) == recognised(line)


@pytest.mark.parametrize("front", ["Nov 28 10:00:00 fw1 ", "<134>2026-11-28T10:00:00Z fw1 ", ""])
def test_a_syslog_without_a_tag_is_taken_off(front: str) -> None:
    assert recognised(front + samples.CEF.format(**WHO)).format == "cef"


def test_events_of_keycloaks_json_log_are_in_its_message() -> None:
    message = samples.KEYCLOAK_LOG.format(**WHO).partition("(executor-thread-1) ")[2]
    assert recognised({"loggerName": "org.keycloak.events", "message": message}).format == "keycloak-log"


def test_pairs_inside_another_line_make_no_event() -> None:
    event = samples.KEYCLOAK_LOG.format(**WHO)
    assert recognised(f"10.0.0.1 said {event.partition('(executor-thread-1) ')[2]}").format is None


@pytest.mark.parametrize("key", ["log", "message"])
def test_what_a_collector_puts_around_is_taken_off(key: str) -> None:
    line = samples.COMBINED.format(**WHO)
    assert recognised({key: line + "\n", "stream": "stdout", "time": "t"}) == recognised(line)


@pytest.mark.parametrize(
    ("line", "format_"),
    [
        pytest.param({"level": "info", "msg": "started"}, "json", id="a-message"),
        pytest.param(
            {"level": "info", "msg": 'type="TOKEN_EXCHANGE", realmId="r", clientId="c", username="a", actor="w"'},
            "json",
            id="a-message-with-an-event-in-it",
        ),
        pytest.param({"level": "info", "msg": "loaded", "path": "/etc/app.yaml"}, "json", id="a-path-alone"),
        pytest.param({"level": "info", "msg": "cache warmed", "user": "alice"}, "json", id="a-user-alone"),
        pytest.param({"level": "info", "msg": "job done", "status": 200}, "json", id="a-status-alone"),
        pytest.param(samples.kubernetes("alice", stage="RequestReceived"), "kubernetes-audit", id="an-earlier-stage"),
        pytest.param(samples.authbridge("inbound", "alice", phase="response"), "authbridge-inbound", id="an-answer"),
        pytest.param(samples.keycloak("LOGOUT", "portal"), "keycloak", id="a-logout"),
        pytest.param("CEF:0|Example|Host|1|1|disk full|9|suser=alice msg=full", "cef", id="another-event"),
        pytest.param(record(event="started", run="r", seq=1, ts="t"), "sidecar", id="a-start-of-ours"),
        pytest.param({**lawful()["caller1"], "op": "login"}, "sidecar", id="a-login-shown-to-us"),
        pytest.param({**lawful()["caller1"], "op": "GetAgentCard"}, "sidecar", id="a-card-that-we-served"),
        pytest.param({**lawful()["caller1"], "path": "/.sidecar/subject"}, "sidecar", id="a-path-of-ours"),
    ],
)
def test_an_entry_that_tells_of_no_request_is_none(line: dict[str, Any] | str, format_: str) -> None:
    found = recognised(line)
    assert (found.format, found.reading) == (format_, None)


@pytest.mark.parametrize("line", ["hello", '{"user":', '{"user":"a","user":"b"}', "[]", "10.0.0.1 - alice", "a=b c=d"])
def test_what_is_not_understood_is_not_guessed_at(line: str) -> None:
    assert recognised(line).format is None


def test_a_line_with_many_records_is_many_entries() -> None:
    line = {"Records": [samples.cloudtrail(samples.iam_user(name)) for name in ("alice", "bob")]}
    found = list(Recogniser(READERS).recognise(samples.text(line).encode()))
    assert [one.reading.users[0].shown for one in found if one.reading] == ["alice", "bob"]


def test_a_csv_export_is_read_by_its_columns() -> None:
    recogniser = Recogniser(READERS)
    rows = [samples.ENTRA_HEADER, samples.ENTRA_ROW.format(**WHO), "not a row"]
    found = [one for row in rows for one in recogniser.recognise(("\ufeff" + row).encode())]
    assert [one.format for one in found] == ["entra-csv", "entra-csv", None]
    assert found[1].reading is not None
    assert found[1].reading.users[0].values == ("alice", "Alice", "u1")
    assert found[1].reading.clients[0].shown == "portal"


def test_our_records_name_only_verified_parties() -> None:
    known, unknown = read(lawful()["callee3"]), read({**lawful()["callee3"], "verified": False, "decision": "deny"})
    assert (known.actors[0].shown, known.peers[0].shown, known.refused) == (
        "spiffe://acme.example/agent/writer",
    ) * 2 + (False,)
    assert (unknown.users, unknown.actors, unknown.refused) == ((), (), True)


def test_a_mapping_of_the_operator_reads_a_format_of_their_own(tmp_path: Any) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'name = "own"\ntitle = "own"\nkind = "template"\ntemplates = ["{time};{who};{for};{request}"]\n'
        '[fields]\nuser = ["for"]\nactor = ["who"]\nrequest = ["request"]\n'
    )
    recogniser = Recogniser([Reader(mapping, Fields()) for mapping in load([str(file)])])
    (found,) = recogniser.recognise(f"10:00;{WRITER};alice;GET /orders HTTP/1.1".encode())
    assert found.format == "own"
    assert found.reading is not None
    assert (found.reading.users[0].shown, found.reading.actors[0].shown) == ("alice", WRITER)


@given(st.binary(max_size=100))
def test_any_line_is_recognised_or_not_understood(line: bytes) -> None:
    assert len(list(Recogniser(READERS).recognise(line))) <= 1
