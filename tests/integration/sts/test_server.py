from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import nullcontext

import pytest

from delegation_core.errors import Reason
from sidecar.identity.bundle import parse_bundle
from sidecar.identity.endpoint import Endpoint, EndpointError
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.generation import new_identity, parse_x509_svid
from sidecar.identity.tls import client_context
from sidecar.sts.server import StsServer, StsSettings, serve
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import LOGIN, Mesh
from tests.fakes.sts_server import STS, RunningSts, StsIdentity, read_answer, running_sts, token_request
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER
from tests.identity.fixed_source import FixedSource
from tests.sts.test_crossing import PARTNERS, policy

pytestmark = pytest.mark.integration


NO_HANDSHAKE = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


async def lawful(sts: RunningSts) -> None:
    assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200


async def test_a_client_without_an_svid_gets_no_further_than_the_handshake() -> None:
    naked = ssl.create_default_context()
    naked.check_hostname = False
    naked.verify_mode = ssl.CERT_NONE
    async with running_sts() as sts:
        with pytest.raises(NO_HANDSHAKE):
            await sts.send(token_request(sts.mesh.exchange_form()), tls=naked)
        await lawful(sts)
    assert [reason for reason, _ in sts.refused] == [Reason.NO_CLIENT_CERT]


async def test_a_local_name_by_a_strangers_authority_gets_no_further_than_the_handshake() -> None:
    async with running_sts() as sts:
        forger = TrustDomainAuthority(TRUST_DOMAIN)
        forged = forger.issue_x509(WRITER)
        # it trusts us, but we do not trust it
        both = parse_bundle(TRUST_DOMAIN, sts.authority.bundle_der() + forger.bundle_der())
        svid = parse_x509_svid(WRITER, forged.chain_der, forged.key_der)
        source = FixedSource(new_identity(1, svid, {TRUST_DOMAIN: both}, now=int(time.time())))
        with pytest.raises(NO_HANDSHAKE):
            await sts.send(token_request(sts.mesh.exchange_form()), tls=client_context(source, expected=STS))
        await lawful(sts)
    assert [reason for reason, _ in sts.refused] == [Reason.UNTRUSTED_CHAIN]


async def test_svids_are_judged_by_the_services_own_clock() -> None:
    async with running_sts() as sts:
        await lawful(sts)
        sts.mesh.now += 7200
        with pytest.raises(NO_HANDSHAKE):
            await lawful(sts)
    assert [reason for reason, _ in sts.refused] == [Reason.SVID_EXPIRED]


async def test_before_it_has_an_identity_the_service_is_up_not_ready_and_serves_nobody() -> None:
    async with running_sts() as sts:
        sts.source.become(None)
        assert (await sts.probe("/readyz")).body == b"identity: denied\n"
        with pytest.raises(NO_HANDSHAKE):
            await sts.send(token_request(sts.mesh.exchange_form()))
        sts.source.become(STS)
        assert (await sts.probe("/readyz")).body == b"ready\n"
        await lawful(sts)


async def test_while_a_login_issuer_has_no_keys_the_service_is_not_ready_and_says_why() -> None:
    async with running_sts() as sts:
        keys = sts.mesh.login_keys.keys.pop(LOGIN)
        assert (await sts.probe("/readyz")).body == f"keys of {LOGIN} (the connection failed)\n".encode()
        sts.mesh.login_keys.keys[LOGIN] = keys
        assert (await sts.probe("/readyz")).body == b"ready\n"


async def test_a_foreign_issuer_without_keys_stops_its_own_crossings_alone() -> None:
    async with running_sts() as sts:
        sts.mesh.service.policy = policy()
        assert not sts.mesh.login_keys.ready(PARTNERS)
        assert (await sts.probe("/readyz")).body == b"ready\n"
        ours = sts.mesh.own(sub="acme:alice")
        assert (await sts.send(token_request(sts.mesh.exchange_form(subject_token=ours)))).status == 200


async def test_consumers_fetch_the_keys_from_the_one_workload_that_may_publish_them() -> None:
    async with running_sts() as sts:
        consumer = OwnIdentity(sts.authority, WRITER)
        for peer, found in ((STS, True), (PLANNER, False)):
            endpoint = Endpoint(url=f"https://127.0.0.1:{sts.server.address[1]}/jwks", peer=peer)
            client = EndpointClient(endpoint, consumer, timeout_s=5, max_bytes=10_000)
            with nullcontext() if found else pytest.raises(EndpointError):
                assert (await client.get()).body == sts.mesh.ring.jwks()
            await client.close()


async def test_a_request_in_flight_is_answered_before_the_service_stops() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        request = token_request(sts.mesh.exchange_form())
        writer.write(request[:-10])
        await writer.drain()
        await lawful(sts)  # then the service has begun to read the first one
        stopping = asyncio.ensure_future(sts.server.stop())
        async with asyncio.timeout(5):
            while (await sts.probe("/readyz")).body != b"draining\n":
                pass
        with pytest.raises(ConnectionRefusedError):
            await lawful(sts)
        writer.write(request[-10:])
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with asyncio.timeout(5):
            await stopping


async def test_a_request_that_does_not_end_is_cut_off_at_the_deadline_and_recorded() -> None:
    async with running_sts(drain_s=0.05) as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form())[:-10])
        await writer.drain()
        await lawful(sts)
        async with asyncio.timeout(5):
            await sts.server.stop()
        assert await reader.read() == b""
    assert [fields["reason"] for _, fields in sts.mesh.log.events] == ["ok", "draining"]


async def test_serving_ends_with_its_task_and_frees_its_addresses() -> None:
    async with running_sts() as sts:
        endpoint = Endpoint(url=f"http://127.0.0.1:{sts.server.probe_address[1]}/livez")
        client = EndpointClient(endpoint, sts.source, timeout_s=5, max_bytes=100)
        assert (await client.get()).body == b"live\n"
        await client.close()
        address = sts.server.probe_address
        taken = StsSettings(port=0, probe_port=address[1])
        with pytest.raises(OSError, match="Address already in use"):
            await serve(taken, service=sts.mesh.service, source=sts.source)
    again = StsServer(taken, service=sts.mesh.service, source=sts.source)
    await again.start()
    assert again.probe_address == address
    await again.stop()


async def test_serving_goes_on_until_it_is_cancelled() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    source = StsIdentity(authority, STS)
    serving = asyncio.ensure_future(serve(StsSettings(port=0, probe_port=0), service=Mesh().service, source=source))
    done, _ = await asyncio.wait([serving], timeout=0.05)
    assert not done
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
