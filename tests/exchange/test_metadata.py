"""Metadata of a token service: its own issuer's, strict, and only as long as it serves."""

from __future__ import annotations

import asyncio

import pytest

from delegation_core.errors import Reason, SidecarError
from sidecar.exchange.metadata import KEPT_S, MetadataSource, is_web_url, metadata_url, parse_metadata
from sidecar.identity.endpoint import EndpointAnswer
from tests.exchange.world import Clock
from tests.fakes.tokens import encode

ISSUER = "https://login.example/tenant"
LAWFUL = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://login.example/authorize",
    "authorization_response_iss_parameter_supported": True,
    "code_challenge_methods_supported": ["S256"],
}


class Publisher:
    """Serves a document."""

    def __init__(self, **changes: object) -> None:
        self.members = {**LAWFUL, **changes}
        self.status, self.content_type = 200, "application/json; charset=utf-8"
        self.fetches = 0

    async def get(self, etag: str | None) -> EndpointAnswer:
        assert etag is None
        self.fetches += 1
        await asyncio.sleep(0)
        return EndpointAnswer(self.status, self.content_type, None, encode(self.members))

    async def close(self) -> None:
        pass


def source(publisher: Publisher, clock: Clock | None = None) -> MetadataSource:
    needed = ("authorization_endpoint",)
    return MetadataSource(ISSUER, publisher, needed=needed, monotonic=clock or Clock(0.0))


def test_its_place_is_between_host_and_path() -> None:
    assert metadata_url(ISSUER) == "https://login.example/.well-known/oauth-authorization-server/tenant"
    assert metadata_url("https://login.example/") == "https://login.example/.well-known/oauth-authorization-server"


async def test_it_is_fetched_once_for_all_who_wait_and_kept_for_an_hour() -> None:
    publisher, clock = Publisher(), Clock(0.0)
    metadata = source(publisher, clock)
    found = await asyncio.gather(*(metadata.get() for _ in range(5)))
    assert {one.endpoint("authorization_endpoint") for one in found} == {LAWFUL["authorization_endpoint"]}
    assert (found[0].names_issuer, publisher.fetches) == (True, 1)
    clock.now = KEPT_S
    await metadata.get()
    assert publisher.fetches == 2


BAD: dict[str, tuple[dict[str, object], Reason]] = {
    "another issuer's": ({"issuer": "https://login.example"}, Reason.STS_ISSUER),
    "its issuer with a slash": ({"issuer": f"{ISSUER}/"}, Reason.STS_ISSUER),
    "nobody's": ({"issuer": None}, Reason.STS_ISSUER),
    "PKCE without S256": ({"code_challenge_methods_supported": ["plain"]}, Reason.STS_BAD_RESPONSE),
    "PKCE of another form": ({"code_challenge_methods_supported": "S256"}, Reason.STS_BAD_RESPONSE),
    "no endpoint": ({"authorization_endpoint": None}, Reason.STS_BAD_RESPONSE),
    "an endpoint without TLS": ({"authorization_endpoint": "http://login.example/a"}, Reason.STS_BAD_RESPONSE),
    "a script": ({"authorization_endpoint": "javascript:alert(1)//login.example"}, Reason.STS_BAD_RESPONSE),
    "a user in it": ({"authorization_endpoint": "https://login.example@evil.example/a"}, Reason.STS_BAD_RESPONSE),
    "a fragment": ({"authorization_endpoint": "https://login.example/a#b"}, Reason.STS_BAD_RESPONSE),
    "a line in it": ({"authorization_endpoint": "https://login.example/a\r\nx: y"}, Reason.STS_BAD_RESPONSE),
}


@pytest.mark.parametrize(("changes", "reason"), BAD.values(), ids=BAD.keys())
async def test_a_document_that_cannot_be_used_is_refused_and_not_kept(
    changes: dict[str, object], reason: Reason
) -> None:
    publisher = Publisher(**changes)
    metadata = source(publisher)
    with pytest.raises(SidecarError) as caught:
        await metadata.get()
    assert caught.value.reason is reason
    publisher.members = dict(LAWFUL)
    assert (await metadata.get()).names_issuer


@pytest.mark.parametrize(
    ("status", "content_type", "reason"),
    [
        (302, "application/json", Reason.STS_REDIRECT),
        (404, "application/json", Reason.STS_UNAVAILABLE),
        (500, "application/json", Reason.STS_UNAVAILABLE),
        (200, "text/html", Reason.STS_BAD_RESPONSE),
    ],
)
async def test_another_answer_than_a_document_is_refused(status: int, content_type: str, reason: Reason) -> None:
    publisher = Publisher()
    publisher.status, publisher.content_type = status, content_type
    with pytest.raises(SidecarError) as caught:
        await source(publisher).get()
    assert caught.value.reason is reason


@pytest.mark.parametrize("document", [b"", b"[]", b"\xff", b'{"issuer":"a","issuer":"b"}', b"{" * 100])
def test_what_is_no_strict_json_is_refused(document: bytes) -> None:
    with pytest.raises(SidecarError) as caught:
        parse_metadata(document, issuer=ISSUER)
    assert caught.value.reason is Reason.STS_BAD_RESPONSE


def test_a_server_need_not_say_that_it_names_itself() -> None:
    known = {"issuer": ISSUER, "code_challenge_methods_supported": ["S256"]}
    assert not parse_metadata(encode(known), issuer=ISSUER).names_issuer
    told = {**known, "authorization_response_iss_parameter_supported": "true"}
    assert not parse_metadata(encode(told), issuer=ISSUER).names_issuer


@pytest.mark.parametrize("methods", [None, ["plain"], "S256"])
def test_a_server_that_does_not_say_that_it_knows_pkce_has_none(methods: object) -> None:
    document = encode({"issuer": ISSUER, **({} if methods is None else {"code_challenge_methods_supported": methods})})
    with pytest.raises(SidecarError) as caught:
        parse_metadata(document, issuer=ISSUER)
    assert caught.value.reason is Reason.STS_BAD_RESPONSE
    parse_metadata(document, issuer=ISSUER, pkce=False)  # where no browser takes part


@pytest.mark.parametrize("url", ["https://a.example/x?y=z", "http://127.0.0.1:8080/x", "http://localhost/"])
def test_a_browser_is_sent_over_tls_or_to_this_machine(url: str) -> None:
    assert is_web_url(url)
