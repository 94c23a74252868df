"""The token service's answer counts only if it countersigns exactly what was asked, for us, now, by a published key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from delegation_core.checkpoint import Head, parse_head
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.keyset import VerificationKey
from sidecar.exchange.countersigner import Countersigner
from sidecar.identity.endpoint import EndpointAnswer
from sidecar.sts.keys import SigningKey
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import FORM
from tests.fakes.tokens import ISSUER, NOW, PLANNER, TRUST_DOMAIN, WRITER

HEAD = Head(run="7f3a", seq=41, hash="ab" * 32)
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()


class Keys:
    """Publishes one key."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return None

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        if (issuer, kid) != (ISSUER, KEY.kid):
            raise Denied(Reason.UNKNOWN_KEY)
        return KEY.verification_key


class Service:
    """Countersigns with one fact changed."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.status = 200
        self.body: Callable[[bytes], bytes] = lambda body: body

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        assert (authorization, once) == (None, False)
        asked = parse_head(form, FORM)
        facts: dict[str, Any] = {"issuer": ISSUER, "workload": WRITER, "at": NOW, "key": KEY, "head": asked}
        facts |= self.changes
        key = facts.pop("key")
        text = key.countersign(facts.pop("head"), **facts).text()
        return EndpointAnswer(self.status, "application/json", None, self.body(orjson.dumps({"checkpoint": text})))

    async def close(self) -> None:
        pass


async def asked(service: Service, source: OwnIdentity) -> None:
    countersigner = Countersigner(ISSUER, source, Keys, service, clock=lambda: NOW)
    checkpoint = await countersigner.countersign(HEAD)
    assert (checkpoint.head, checkpoint.workload, checkpoint.issuer) == (HEAD, WRITER, ISSUER)


async def refused(service: Service, source: OwnIdentity) -> Reason:
    with pytest.raises(SidecarError) as error:
        await asked(service, source)
    return error.value.reason


@pytest.fixture(scope="module")
def source() -> OwnIdentity:
    return OwnIdentity(TrustDomainAuthority(TRUST_DOMAIN), WRITER)


async def test_what_was_asked_is_signed(source: OwnIdentity) -> None:
    await asked(Service(), source)


@pytest.mark.parametrize("at", [NOW - 300, NOW + 300])
async def test_the_clocks_may_differ_by_five_minutes(source: OwnIdentity, at: int) -> None:
    await asked(Service(at=at), source)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"issuer": "https://other.example"}, Reason.STS_BAD_RESPONSE),
        ({"workload": PLANNER}, Reason.BAD_SIGNATURE),
        ({"at": NOW - 301}, Reason.STS_BAD_RESPONSE),
        ({"at": NOW + 301}, Reason.STS_BAD_RESPONSE),
        ({"head": replace(HEAD, seq=40)}, Reason.STS_BAD_RESPONSE),
        ({"head": replace(HEAD, hash="ac" * 32)}, Reason.STS_BAD_RESPONSE),
        ({"head": replace(HEAD, run="another")}, Reason.BAD_SIGNATURE),
        ({"key": OTHER_KEY}, Reason.UNKNOWN_KEY),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
async def test_anything_else_is_refused(source: OwnIdentity, change: dict[str, Any], reason: Reason) -> None:
    assert await refused(Service(**change), source) is reason


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"checkpoint":1}', b'{"checkpoint":"x"}', b" " * 9000 + b"{}"])
async def test_an_answer_that_is_none_is_refused(source: OwnIdentity, body: bytes) -> None:
    service = Service()
    service.body = lambda _: body
    assert await refused(service, source) is Reason.STS_BAD_RESPONSE


async def test_an_error_is_no_signature(source: OwnIdentity) -> None:
    service = Service()
    service.status = 400
    assert await refused(service, source) is Reason.STS_BAD_RESPONSE


async def test_without_an_identity_nobody_is_asked(source: OwnIdentity) -> None:
    source = OwnIdentity(source.authority, None)
    with pytest.raises(Unavailable) as error:
        await asked(Service(), source)
    assert error.value.reason is Reason.NOT_READY
