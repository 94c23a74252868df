import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.attribution.readings import Fields, Named, NoRequestError, named_by
from tests.audit.evidence import lawful, record

COMMON = '10.0.0.1 - {user} [24/Nov/2026:21:04:05 +0000] "{request}" 200 12'


def named(line: str | dict[str, Any], fields: Fields | None = None) -> Named | None:
    text = line if isinstance(line, str) else json.dumps(line)
    return named_by(text.encode(), fields or Fields())


@pytest.mark.parametrize(
    ("line", "user", "asked"),
    [
        pytest.param(COMMON.format(user="alice", request="GET /a HTTP/1.1"), "alice", "GET /a", id="common"),
        pytest.param(
            COMMON.format(user="alice", request="GET /a HTTP/1.1") + ' "-" "agent/1.0"',
            "alice",
            "GET /a",
            id="combined",
        ),
        pytest.param("a:80 " + COMMON.format(user="alice", request="GET /a HTTP/1.1"), "alice", "GET /a", id="vhost"),
        pytest.param(COMMON.format(user="-", request="GET /a HTTP/1.1"), None, "GET /a", id="nobody"),
        pytest.param(COMMON.format(user="A. User", request="GET / HTTP/1.1"), "A. User", "GET /", id="a-space"),
        pytest.param(COMMON.format(user="alice", request="GET /a?k=secret HTTP/1.1"), "alice", "GET /a", id="no-query"),
        pytest.param(
            COMMON.format(user="alice", request="GET http://bob:secret@h/a@b HTTP/1.1"),
            "alice",
            "GET http://h/a@b",
            id="no-user-info",
        ),
        pytest.param(COMMON.format(user="alice", request=r"GET /\"a HTTP/1.1"), "alice", r"GET /\"a", id="a-quote"),
        pytest.param(COMMON.format(user="alice", request="-"), "alice", "-", id="no-request-line"),
        pytest.param(COMMON.format(user="alice", request="GET?k=secret"), "alice", None, id="no-method"),
    ],
)
def test_common_and_combined_log_format_name_the_user_alone(line: str, user: str | None, asked: str | None) -> None:
    assert named(line) == Named(user=user, request=asked)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param({"user": "alice"}, ("alice", None, None), id="user"),
        pytest.param({"user_id": 42}, ("42", None, None), id="a-number"),
        pytest.param({"user_id": True}, (None, None, None), id="a-flag-is-no-name"),
        pytest.param({"user": "-"}, (None, None, None), id="a-dash-is-nobody"),
        pytest.param({"user": ""}, (None, None, None), id="empty-is-nobody"),
        pytest.param({"User": "alice"}, ("alice", None, None), id="whatever-the-case"),
        pytest.param({"user": {"name": "alice"}}, ("alice", None, None), id="nested"),
        pytest.param({"sub": "alice", "act": {"sub": "writer"}}, ("alice", "writer", None), id="claims"),
        pytest.param({"sub": "alice", "agent_id": "writer"}, ("alice", "writer", None), id="agent-id"),
        pytest.param({"user": "alice", "agent": "writer"}, ("alice", "writer", None), id="agent"),
        pytest.param({"user": "alice", "agent": "curl/8.5"}, ("alice", None, None), id="a-user-agent-is-nobody"),
        pytest.param({"user": "alice", "agent": "Mozilla/5.0 (X11)"}, ("alice", None, None), id="a-browser-is-nobody"),
        pytest.param({"user": "alice", "agent": "spiffe://a/b/1"}, ("alice", "spiffe://a/b/1", None), id="a-spiffe-id"),
        pytest.param({"user": "alice", "user_agent": "writer"}, ("alice", None, None), id="the-field-user-agent"),
        pytest.param({"user": "alice", "client_id": "front"}, ("alice", None, "front"), id="a-client-is-no-actor"),
        pytest.param({"user": "alice", "client": "10.0.0.1"}, ("alice", None, None), id="an-address-is-no-client"),
        pytest.param({"user": "alice", "client": "::1"}, ("alice", None, None), id="nor-one-of-version-6"),
        pytest.param({"user": {"id": "writer", "effective": {"id": "alice"}}}, ("alice", "writer", None), id="ecs"),
        pytest.param(
            {"user": {"username": "writer"}, "impersonatedUser": {"username": "alice"}},
            ("alice", "writer", None),
            id="kubernetes",
        ),
        pytest.param({"auth": "Bearer eyJhbGciOi"}, (None, None, None), id="a-credential-is-no-name"),
        pytest.param({"user": "eyJhbGciOi"}, (None, None, None), id="nor-is-a-token"),
        pytest.param({"user": "ewogImFsZyI6IkVTMjU2In0.e30.c2ln"}, (None, None, None), id="in-any-layout"),
        pytest.param({"user": "ewolf-of-the.north"}, ("ewolf-of-the.north", None, None), id="a-name-is-a-name"),
    ],
)
def test_json_names_by_the_fields_that_are_known(line: dict[str, Any], expected: tuple[str | None, ...]) -> None:
    found = named(line)
    assert found is not None
    assert (found.user, found.actor, found.client) == expected


@pytest.mark.parametrize("method", ["GET /a?k=secret", "", "eyJ" + "a" * 40])
def test_what_is_no_method_is_not_repeated(method: str) -> None:
    found = named({"user": "alice", "method": method, "path": "/b?k=secret"})
    assert found == Named(user="alice", request="/b")


def test_the_operator_says_which_other_fields_count() -> None:
    found = named({"who": "alice", "App": {"Name": "writer"}}, Fields(user=["who"], actor=["app.name"]))
    assert found == Named(user="alice", actor="writer")


def test_the_operators_fields_count_first() -> None:
    found = named({"user": "proxy", "who": "alice", "user.effective.id": "x"}, Fields(user=["who"]))
    assert found is not None
    assert found.user == "alice"


def test_our_own_record_names_subject_and_actor() -> None:
    found = named(lawful()["callee3"])
    assert found is not None
    assert (found.user, found.actor) == ("alice", "spiffe://acme.example/agent/writer")
    assert (found.ours, found.refused) == (True, False)


def test_a_login_that_was_shown_to_the_sidecar_is_no_request_of_an_agent() -> None:
    assert named({**lawful()["caller1"], "op": "login"}) is None
    assert named({**lawful()["caller1"], "path": "/.sidecar/subject"}) is None


def test_claims_that_did_not_verify_name_nobody() -> None:
    found = named({**lawful()["callee3"], "verified": False, "decision": "deny"})
    assert found is not None
    assert (found.user, found.actor, found.client, found.refused) == (None, None, None, True)


def test_a_record_of_ours_that_is_no_request_tells_of_none() -> None:
    assert named(record(event="started", run="r", seq=1, ts="t")) is None


@pytest.mark.parametrize("line", ["hello", '{"user":', '{"user":"a","user":"b"}', "[]", "10.0.0.1 - alice"])
def test_what_is_no_request_is_not_guessed_at(line: str) -> None:
    with pytest.raises(NoRequestError):
        named(line)


@given(st.binary(max_size=100))
def test_any_line_names_or_is_refused(line: bytes) -> None:
    try:
        named_by(line, Fields())
    except NoRequestError:
        return


def test_a_hostile_line_takes_no_longer_than_an_honest_one() -> None:
    """A reading of quadratic time takes minutes; the time limit of every test ends it."""
    for hostile in (b"a a " + b" [" * 500_000, b'a a a [t] "' + b"\\" * 999_999, b"a " * 500_000):
        with pytest.raises(NoRequestError):
            named_by(hostile, Fields())
