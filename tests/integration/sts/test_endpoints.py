from __future__ import annotations

import base64
import hashlib
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import cast

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.checkpoint import Head, parse_checkpoint
from delegation_core.keyset import parse_jwks
from delegation_core.rfc8693 import (
    CLIENT_CREDENTIALS,
    GRANT_TYPE,
    MAX_REQUEST_BYTES,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import verify_signature
from sidecar.identity.tls import client_context
from sidecar.sts.endpoints import ACTOR_PROFILE_URN, server_metadata
from sidecar.sts.mint import FreshNames
from sidecar.sts.rate import RateSettings
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import FORM, Mesh, small_policy
from tests.fakes.sts_server import STS, RunningSts, read_answer, running_sts, token_request
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER

pytestmark = pytest.mark.integration


async def lawful(sts: RunningSts) -> None:
    answer = await sts.send(token_request(sts.mesh.exchange_form()))
    assert (answer.status, answer.members["scope"]) == (200, "crm.read")


async def test_a_token_is_issued_over_mtls_and_verifies_with_the_published_keys() -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form()))
        keys = parse_jwks((await sts.get("/jwks")).body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    bearer = parse_bearer(answer.members["access_token"])
    key = keys.find(bearer.kid)
    assert key is not None
    verify_signature(bearer, key, {"ES256"})
    ((event, fields),) = sts.mesh.log.events
    assert (event, fields["peer"], fields["source"]) == ("token.exchanged", WRITER, "127.0.0.1")


TYPE = f"Content-Type: {FORM}"


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        pytest.param(("Content-Type: application/json",), "/token", id="JSON"),
        pytest.param(("X-None: 1",), "/token", id="no type"),
        pytest.param((TYPE, "Content-Encoding: gzip"), "/token", id="packed"),
        pytest.param((TYPE, "Authorization: Basic eDp4"), "/token", id="a second authentication"),
        pytest.param((TYPE,), "/token?scope=x", id="a query"),
    ],
)
async def test_what_is_no_plain_form_is_refused(fields: tuple[str, ...], target: str) -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form(), *fields, target=target))
        assert (answer.status, answer.members["error"]) == (400, "invalid_request")
        assert answer.headers["delegation-reason"] == "exchange_malformed"
        assert answer.headers["cache-control"] == "no-store"
        await lawful(sts)
    assert [event for event, _ in sts.mesh.log.events] == ["token.exchange_refused", "token.exchanged"]


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        pytest.param(b"GET /token HTTP/1.1\r\nHost: sts\r\n\r\n", 405, "method_refused", id="another-method"),
        pytest.param(
            token_request(b"a=b", TYPE, "Expect: secret-of-mine"), 417, "expectation_refused", id="an-expectation"
        ),
    ],
)
async def test_what_the_library_would_refuse_has_its_record_and_its_form(
    request_: bytes, status: int, reason: str
) -> None:
    async with running_sts() as sts:
        answer = await sts.send(request_)
        assert (answer.status, answer.members["error"]) == (status, "invalid_request")
        assert answer.headers["delegation-reason"] == reason
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)
        assert b"secret" not in answer.body
        await lawful(sts)
    assert [(event, fields["reason"]) for event, fields in sts.mesh.log.events] == [
        ("token.exchange_refused", reason),
        ("token.exchanged", "ok"),
    ]


async def test_a_body_that_is_held_back_is_asked_for() -> None:
    async with running_sts() as sts:
        head, _, body = token_request(sts.mesh.exchange_form(), TYPE, "Expect: 100-Continue").partition(b"\r\n\r\n")
        async with sts.connection() as (reader, writer):
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await read_answer(reader)).status == 200


@pytest.mark.parametrize("distrusted", [False, True])
@pytest.mark.parametrize("client", [WRITER, PLANNER], ids=["an exchange", "for itself"])
async def test_a_client_that_is_distrusted_while_its_body_comes_gets_nothing(
    client: SpiffeId, distrusted: bool
) -> None:
    async with running_sts() as sts:
        form: dict[str, object] = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
        form = sts.mesh.exchange_form() if client == WRITER else form
        head, _, body = token_request(form, TYPE, "Expect: 100-Continue").partition(b"\r\n\r\n")
        async with sts.connection(client) as (reader, writer):
            writer.write(head + b"\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            sts.authority.rotate()
            if distrusted:
                sts.authority.drop_old()
            sts.source.become(STS)
            writer.write(body)
            answer = await read_answer(reader)
        assert answer.status == (401 if distrusted else 200)
        assert answer.headers.get("delegation-reason") == ("client_not_authenticated" if distrusted else None)


async def test_two_media_types_are_none() -> None:
    async with running_sts() as sts:
        assert (await sts.send(token_request(sts.mesh.exchange_form(), TYPE, TYPE))).status == 400
        await lawful(sts)


async def test_a_refusal_says_its_class_and_nothing_of_the_request() -> None:
    async with running_sts() as sts:
        form = sts.mesh.exchange_form(audience="spiffe://acme.example/tool/unheard-of")
        answer = await sts.send(token_request(form))
    assert (answer.status, answer.members["error"]) == (400, "invalid_target")
    assert "unheard-of" not in answer.body.decode()
    ((_, fields),) = sts.mesh.log.events
    assert (fields["reason"], fields["audience"]) == ("target_unknown", "spiffe://acme.example/tool/unheard-of")


async def test_a_client_that_exchanges_one_token_too_often_is_told_when_to_come_again() -> None:
    async with running_sts(Mesh(start=int(time.time()), rate=RateSettings(burst=1))) as sts:
        request = token_request(sts.mesh.exchange_form())
        assert (await sts.send(request)).status == 200
        refused = await sts.send(request)
    assert (refused.status, refused.members["error"]) == (503, "temporarily_unavailable")
    assert (refused.headers["retry-after"], refused.headers["delegation-reason"]) == ("1", "overloaded")
    assert [fields["reason"] for _, fields in sts.mesh.log.events] == ["ok", "overloaded"]


async def test_a_stolen_token_with_another_svid_of_the_domain_is_refused() -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form()), PLANNER)
        assert (answer.status, answer.headers["delegation-reason"]) == (400, "actor_not_client")
        form = sts.mesh.exchange_form(PLANNER, audience=WRITER)
        answer = await sts.send(token_request(form), PLANNER)
        assert (answer.status, answer.headers["delegation-reason"]) == (400, "not_your_token")
        await lawful(sts)


async def test_a_body_beyond_the_limit_is_refused_and_one_at_it_is_read() -> None:
    async with running_sts() as sts:
        body = token_request(sts.mesh.exchange_form()).partition(b"\r\n\r\n")[2]
        for size, status in ((MAX_REQUEST_BYTES + 1, 413), (MAX_REQUEST_BYTES, 200)):
            filled = body + b"&filler=" + b"x" * (size - len(body) - 8)
            assert (await sts.send(token_request(filled))).status == status


async def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    async with running_sts(body_timeout_s=0.05) as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form())[:-10])
        assert (answer.status, answer.headers["delegation-reason"]) == (408, "timeout")
        assert answer.headers["connection"] == "close"
        await lawful(sts)


async def test_a_body_whose_framing_breaks_is_refused_without_quoting_it() -> None:
    head = f"POST /token HTTP/1.1\r\nHost: sts\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running_sts() as sts:
        async with sts.connection() as (reader, writer):
            writer.write(head.encode() + b"5\r\nhello\r\n")
            await writer.drain()
            writer.write(b"secret\r\n")
            answer = await read_answer(reader)
        assert answer.status == 400
        await lawful(sts)
    assert "secret" not in repr(sts.mesh.log.events)


HEAD = f"POST /token HTTP/1.1\r\nHost: sts\r\nContent-Type: {FORM}\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"subject_token=secret HTTP/1.1\r\n\r\n", id="a first line"),
        pytest.param(f"{HEAD}Authorization : Bearer secret\r\n\r\n".encode(), id="a field"),
        pytest.param(f"{HEAD}{TYPE}\r\nContent-Length: 6\r\n\r\nsecret".encode(), id="two types"),
        pytest.param(f"{HEAD}Transfer-Encoding: chunked\r\n\r\nsecret\r\n".encode(), id="a chunk"),
        pytest.param(f"{HEAD}Content-Length: 3\r\n\r\na=bsecret\r\n\r\n".encode(), id="more than the body"),
        pytest.param(b"GET /jwks HTTP/1.1\r\n\r\n", id="no Host"),
    ],
)
async def test_what_is_no_http_is_refused_and_recorded_without_quoting_it(request_bytes: bytes) -> None:
    async with running_sts() as sts:
        async with sts.connection() as (reader, writer):
            writer.write(request_bytes)
            answer = await read_answer(reader)
            assert await reader.read() == b""
        assert (answer.status, answer.members["error"]) == (400, "invalid_request")
        assert answer.headers["delegation-reason"] == "bad_request"
        assert b"secret" not in answer.body
        ((event, fields),) = sts.mesh.log.events
        assert (event, fields["reason"], fields["status"]) == ("token.exchange_refused", "bad_request", 400)
        assert (fields["peer"], fields["source"]) == (WRITER, "127.0.0.1")
        await lawful(sts)


async def test_a_client_that_leaves_before_its_body_is_complete_leaves_a_record() -> None:
    async with running_sts() as sts:
        async with sts.connection() as (_, writer):
            writer.write(token_request(sts.mesh.exchange_form())[:-10])
            await writer.drain()
        await sts.mesh.log.wait_for_events(1)
    ((event, fields),) = sts.mesh.log.events
    assert (event, fields["reason"]) == ("token.exchange_refused", "peer_gone")


async def test_an_svid_that_ended_on_a_kept_connection_authenticates_nobody() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form()))
        assert (await read_answer(reader)).status == 200
        sts.mesh.now += 7200
        writer.write(token_request(sts.mesh.exchange_form()))
        answer = await read_answer(reader)
        assert (answer.status, answer.members["error"]) == (401, "invalid_client")
        assert answer.headers["delegation-reason"] == "client_not_authenticated"
        assert await reader.read() == b""


async def test_requests_without_a_valid_svid_leave_a_burst_of_records_and_all_are_counted() -> None:
    async with running_sts() as sts, AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(sts.connection()) for _ in range(60)]
        later = await stack.enter_async_context(sts.connection())
        later[1].write(b"GET /jwks HTTP/1.1\r\nHost: sts\r\n\r\n")
        assert (await read_answer(later[0])).status == 200  # every handshake is over at the service too
        sts.mesh.now += 7200
        for reader, writer in kept:
            writer.write(token_request(sts.mesh.exchange_form()))
            assert (await read_answer(reader)).status == 401
        refused = [fields for event, fields in sts.mesh.log.events if event == "token.exchange_refused"]
        assert [fields["reason"] for fields in refused] == ["client_not_authenticated"] * 50
        assert sum(sts.mesh.log.metrics.exchanges.values()) == 60
        assert sts.mesh.log.metrics.records_suppressed == 10
        sts.mesh.log.monotonic = lambda: 2.0
        later[1].write(token_request(sts.mesh.exchange_form()))
        assert (await read_answer(later[0])).status == 401
        assert sts.mesh.log.events[-1][1]["suppressed"] == 10


async def test_refused_requests_of_a_proven_client_keep_one_record_each() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        for _ in range(60):
            writer.write(token_request(sts.mesh.exchange_form(), TYPE, target="/token?scope=x"))
            assert (await read_answer(reader)).status == 400
        assert [event for event, _ in sts.mesh.log.events] == ["token.exchange_refused"] * 60
        assert sts.mesh.log.metrics.records_suppressed == 0


async def test_a_client_whose_authority_is_gone_is_refused_on_its_kept_connection() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form()))
        assert (await read_answer(reader)).status == 200
        sts.authority.rotate()
        sts.authority.drop_old()
        sts.source.become(sts.source.current.spiffe_id if sts.source.current else None)
        writer.write(token_request(sts.mesh.exchange_form()))
        assert (await read_answer(reader)).status == 401


async def test_without_an_own_identity_nobody_is_served_on_a_kept_connection() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form()))
        assert (await read_answer(reader)).status == 200
        sts.source.become(None)
        writer.write(token_request(sts.mesh.exchange_form()))
        answer = await read_answer(reader)
        assert (answer.status, answer.members["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"


def broken_names() -> FreshNames:
    raise IndexError("secret")


async def test_a_bug_ends_one_request_without_a_trace_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running_sts() as sts:
        names = sts.mesh.service.names
        sts.mesh.service.names = broken_names
        form = sts.mesh.exchange_form()
        answer = await sts.send(token_request(form))
        assert (answer.status, answer.headers["delegation-reason"]) == (502, "internal")
        sts.mesh.service.names = names
        await lawful(sts)
    assert "IndexError" not in answer.body.decode()
    assert "secret" not in caplog.text + repr(sts.mesh.log.events)
    (_, fields), _ = sts.mesh.log.events
    assert (fields["reason"], fields["detail"]) == ("internal", "IndexError")
    assert [record.request_id for record in caplog.records] == [fields["request_id"]]  # type: ignore[attr-defined]
    assert str(form["subject_token"]) not in caplog.text


async def test_broken_http_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running_sts() as sts:
        answer = await sts.send(b"POST /token HTTP/1.1\r\nHost: sts\r\nAuthorization : Bearer secret\r\n\r\n")
        assert answer.status == 400
        await lawful(sts)
    assert caplog.records == []


@pytest.mark.parametrize(
    "target", ["/", "/token/", "//token", "/readyz", "/metrics", "/.well-known/openid-configuration"]
)
async def test_nothing_else_is_served_to_clients(target: str) -> None:
    async with running_sts() as sts:
        assert (await sts.get(target)).status == 404


async def test_tokens_are_only_asked_for_by_post() -> None:
    async with running_sts() as sts:
        answer = await sts.get("/token")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        pytest.param(b"GET /secret HTTP/1.1\r\nHost: sts\r\n\r\n", 404, "no_route", id="a path"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: sts\r\n\r\n", 404, "no_route", id="the server as a whole"),
        pytest.param(b"DELETE /jwks HTTP/1.1\r\nHost: sts\r\n\r\n", 405, "method_refused", id="a method"),
        pytest.param(
            b"GET /jwks HTTP/1.1\r\nHost: sts\r\nExpect: secret\r\n\r\n",
            417,
            "expectation_refused",
            id="an expectation",
        ),
        pytest.param(
            b"GET /no HTTP/1.1\r\nHost: sts\r\nExpect: secret\r\n\r\n",
            417,
            "expectation_refused",
            id="an expectation of a path that is not there",
        ),
    ],
)
async def test_what_is_not_served_is_refused_and_recorded_without_quoting_it(
    request_bytes: bytes, status: int, reason: str
) -> None:
    async with running_sts() as sts:
        answer = await sts.send(request_bytes)
        assert (answer.status, answer.members["error"]) == (status, "invalid_request")
        assert answer.headers["delegation-reason"] == reason
        assert answer.headers.get("allow") == ("GET,HEAD" if status == 405 else None)
        assert b"secret" not in (answer.body + repr(answer.headers).encode()).lower()
        ((event, fields),) = sts.mesh.log.events
        assert (event, fields["reason"], fields["status"]) == ("token.exchange_refused", reason, status)
        assert (fields["peer"], fields["source"]) == (WRITER, "127.0.0.1")
        await lawful(sts)


async def test_metadata_names_every_endpoint_and_how_clients_authenticate() -> None:
    async with running_sts() as sts:
        answer = await sts.get("/.well-known/oauth-authorization-server")
    assert answer.members == {
        "issuer": ISSUER,
        "token_endpoint": f"{ISSUER}/token",
        "jwks_uri": f"{ISSUER}/jwks",
        "record_countersigning_endpoint": f"{ISSUER}/countersign",
        "grant_types_supported": [GRANT_TYPE, CLIENT_CREDENTIALS],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "scopes_supported": ["crm.read", "crm.write", "docs.read"],
        "tls_client_certificate_bound_access_tokens": False,
    }
    assert answer.headers["cache-control"] == "max-age=300"


@pytest.mark.parametrize("introspection", [None, RateSettings()], ids=["", "with introspection"])
async def test_every_member_of_the_metadata_is_true(introspection: RateSettings | None) -> None:
    async with running_sts(introspection=introspection) as sts:
        metadata = (await sts.get("/.well-known/oauth-authorization-server")).members
        ends = {name: url.removeprefix(ISSUER) for name, url in metadata.items() if str(url).startswith(f"{ISSUER}/")}
        assert ends.keys() == {name for name in metadata if name.endswith(("_endpoint", "_uri"))}
        for path in ends.values():
            assert (await sts.get(path)).status in {200, 405}
        assert ("introspection_endpoint" in ends) is (introspection is not None)
        assert (await sts.get("/introspect")).status == (404 if introspection is None else 405)
        for grant in (*metadata["grant_types_supported"], "authorization_code"):
            refused = await sts.send(token_request({"grant_type": grant}))
            assert (refused.members["error"] == "unsupported_grant_type") is (grant == "authorization_code")
        issued = await sts.send(token_request(sts.mesh.exchange_form()))
        assert "cnf" not in parse_bearer(issued.members["access_token"]).claims
        sts.mesh.service.policy = small_policy(self_rules=())
        metadata = (await sts.get("/.well-known/oauth-authorization-server")).members
        assert metadata["grant_types_supported"] == [GRANT_TYPE]
        assert (await sts.get("/.well-known/openid-configuration")).status == 404  # nobody logs in here


async def test_a_bound_token_holds_the_thumbprint_of_the_certificate_that_its_client_showed() -> None:
    policy = small_policy()
    bound = replace(policy, targets=tuple(replace(one, bound=True) for one in policy.targets))
    async with running_sts(Mesh(policy=bound, start=int(time.time())), introspection=RateSettings()) as sts:
        own = [OwnIdentity(sts.authority, WRITER) for _ in range(2)]  # the second as after a renewal
        for identity in own:
            tls = client_context(identity, expected=STS)
            issued = await sts.send(token_request(sts.mesh.exchange_form()), tls=tls)
            claims = parse_bearer(issued.members["access_token"]).claims
            assert identity.current is not None
            svid = identity.current.svid
            digest = hashlib.sha256(svid.chain[0]).digest()
            assert claims["cnf"] == {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
            assert int(str(claims["exp"])) <= svid.not_after
            told = await sts.send(
                token_request({"token": issued.members["access_token"]}, target="/introspect"), spiffe_id=CRM
            )
            assert told.members["cnf"] == claims["cnf"]
        metadata = (await sts.get("/.well-known/oauth-authorization-server")).members
    assert metadata["tls_client_certificate_bound_access_tokens"] is True


async def test_a_service_that_follows_the_actor_profile_says_so_mints_so_and_refuses_so() -> None:
    mesh = Mesh(policy=small_policy(act_iss=ISSUER), start=int(time.time()))
    async with running_sts(mesh) as sts:
        metadata = (await sts.get("/.well-known/oauth-authorization-server")).members
        assert metadata["authorization_grant_profiles_supported"] == [ACTOR_PROFILE_URN]
        assert metadata["actor_profile_token_exchange"] == {
            "subject_token_types_supported": sorted([TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT]),
            "actor_token_types_supported": [TOKEN_TYPE_JWT],
            "requested_token_types_supported": sorted([TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT]),
        }
        form = mesh.exchange_form(subject_token=mesh.own(), actor_token=mesh.svid(WRITER))
        issued = parse_bearer((await sts.send(token_request(form))).members["access_token"])
        act = cast("dict[str, object]", issued.claims["act"])
        assert (act["iss"], act["sub"]) == (ISSUER, WRITER)
        stranger = mesh.exchange_form(subject_token=mesh.own(sub="bob"), actor_token=mesh.svid(WRITER))
        refused = await sts.send(token_request(stranger))
        assert (refused.status, refused.members["error"]) == (400, "actor_unauthorized")


def test_without_the_actor_profile_its_metadata_is_absent() -> None:
    assert not {"authorization_grant_profiles_supported", "actor_profile_token_exchange"} & set(
        server_metadata(small_policy())
    )


def test_metadata_names_the_address_clients_reach_if_it_is_not_the_issuer() -> None:
    metadata = server_metadata(small_policy(), "https://10.0.0.7:7444/")
    assert (metadata["issuer"], metadata["token_endpoint"]) == (ISSUER, "https://10.0.0.7:7444/token")


async def test_an_issuer_with_a_path_has_everything_under_it() -> None:
    issuer = ISSUER + "/t1"
    mesh = Mesh(policy=small_policy(issuer=issuer), start=int(time.time()))
    async with running_sts(mesh) as sts:
        answer = await sts.get("/.well-known/oauth-authorization-server/t1")
        assert (answer.members["issuer"], answer.members["token_endpoint"]) == (issuer, f"{issuer}/token")
        form = mesh.exchange_form(subject_token=mesh.own(iss=issuer), actor_token=mesh.svid(WRITER, aud=[issuer]))
        assert (await sts.send(token_request(form, target="/t1/token"))).members["scope"] == "crm.read"


async def test_the_probe_says_what_keeps_the_service_from_being_ready() -> None:
    async with running_sts() as sts:
        assert (await sts.probe("/readyz")).status == 200
        assert (await sts.probe("/livez")).body == b"live\n"
        sts.source.become(None)
        sts.source.bundles = {}
        sts.mesh.log.healthy = False
        sts.mesh.login_keys.keys = {}
        answer = await sts.probe("/readyz")
        assert (answer.status, (await sts.probe("/livez")).status) == (503, 200)
    assert answer.body.decode().splitlines() == [
        "identity: denied",
        "jwt bundles",
        "records",
        "keys of https://login.acme.example (the connection failed)",
    ]


async def test_a_request_is_refused_before_it_is_read_while_no_record_can_be_written() -> None:
    async with running_sts() as sts:
        sts.mesh.log.healthy = False
        answer = await sts.send(token_request({"grant_type": "nonsense"}))
        assert (answer.status, answer.headers["delegation-reason"]) == (503, "audit_unavailable")
        sts.mesh.log.healthy = True
        assert (await sts.send(token_request({"grant_type": "nonsense"}))).status == 400


async def test_the_probe_serves_metrics_and_no_tokens() -> None:
    async with running_sts() as sts:
        sts.mesh.log.metrics.declare_issuers([ISSUER])
        await lawful(sts)
        answer = await sts.probe("/metrics")
        assert 'sidecar_token_exchange_total{issuer="https://sts.acme.example",result="ok"} 1.0' in answer.body.decode()
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert (await sts.probe("/jwks")).status == (await sts.probe("/token")).status == 404


async def test_a_request_that_names_two_targets_is_recorded_with_both() -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form(audience=[CRM, WRITER])))
    assert answer.members["error"] == "invalid_target"
    assert sts.mesh.log.events[0][1]["audience"] == f"{CRM} {WRITER}"


SIGNED = Head(run="7f3a", seq=41, hash="ab" * 32)
HEAD_FORM = {"run": "7f3a", "seq": "41", "hash": "ab" * 32}


async def test_a_head_is_countersigned_over_mtls_for_the_client_and_verifies_with_the_published_keys() -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(HEAD_FORM, target="/countersign"))
        keys = parse_jwks((await sts.get("/jwks")).body)
    assert answer.status == 200
    checkpoint = parse_checkpoint(answer.members["checkpoint"], workload=WRITER, run="7f3a")
    assert checkpoint.head == SIGNED
    key = keys.find(checkpoint.kid)
    assert key is not None
    checkpoint.verify(key)
    ((event, fields),) = sts.mesh.log.events
    assert (event, fields["peer"]) == ("records.countersigned", WRITER)


async def test_what_is_no_head_is_refused_and_recorded() -> None:
    async with running_sts() as sts:
        answer = await sts.send(token_request(sts.mesh.exchange_form(), target="/countersign"))
        assert (answer.status, answer.headers["delegation-reason"]) == (400, "exchange_malformed")
        assert [(event, fields["peer"]) for event, fields in sts.mesh.log.events] == [
            ("token.exchange_refused", WRITER)
        ]
        await lawful(sts)


async def test_a_client_whose_svid_has_ended_gets_no_checkpoint() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        writer.write(token_request(HEAD_FORM, target="/countersign"))
        assert (await read_answer(reader)).status == 200
        sts.mesh.now += 7200
        writer.write(token_request(HEAD_FORM, target="/countersign"))
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["delegation-reason"]) == (401, "client_not_authenticated")


async def test_a_client_that_is_distrusted_while_its_head_comes_gets_no_checkpoint() -> None:
    async with running_sts() as sts:
        request = token_request(HEAD_FORM, TYPE, "Expect: 100-Continue", target="/countersign")
        head, _, body = request.partition(b"\r\n\r\n")
        async with sts.connection() as (reader, writer):
            writer.write(head + b"\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            sts.authority.rotate()
            sts.authority.drop_old()
            sts.source.become(STS)
            writer.write(body)
            answer = await read_answer(reader)
        assert (answer.status, answer.headers["delegation-reason"]) == (401, "client_not_authenticated")
