"""The injector as a process: real TLS, changing certificates and definition, an orderly end."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from sidecar.cli import main
from tests.injector.pods import RENDERED, bare, review
from tests.injector.serving import HOST, PATIENCE_S, Running, write_pair

pytestmark = pytest.mark.integration


async def test_a_pod_is_injected_over_tls_and_the_probe_says_that_all_is_well(running: Running) -> None:
    status, answer = await running.ask()
    assert (status, answer["response"]["allowed"]) == (200, True)
    assert (await running.event("pod.injected"))["op"] == "injected"
    assert await running.probed("/readyz") == (200, "ready\n")
    assert "sidecar_injector_reviews_total" in (await running.probed("/metrics"))[1]


async def test_what_is_no_question_is_a_failed_call_and_lets_nobody_through(running: Running) -> None:
    assert (await running.ask(b"{}"))[0] == 400
    assert (await running.ask(b" " * 4_000_000))[0] in (400, 413)
    assert (await running.ask(headers={"Content-Type": "text/plain"}))[0] == 415
    assert (await running.ask(headers={"Content-Encoding": "gzip"}))[0] == 415
    assert (await running.ask())[0] == 200


async def test_who_speaks_an_older_tls_is_not_served(running: Running) -> None:
    context = ssl.create_default_context(cadata=running.authority.bundle_pem().decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", running.port, ssl=context, server_hostname=HOST)


async def test_a_new_certificate_counts_and_a_broken_one_does_not(running: Running) -> None:
    running.authority.rotate()
    running.authority.drop_old()  # a client that trusts only the new authority refuses the old pair
    with pytest.raises(aiohttp.ClientError):
        await running.ask()
    write_pair(running.folder, running.authority)
    running.process.send_signal(signal.SIGHUP)
    await running.event("config.reloaded")
    assert (await running.ask())[0] == 200
    (running.folder / "tls.crt").write_bytes(b"")
    running.process.send_signal(signal.SIGHUP)
    assert "certificate" in (await running.event("config.refused"))["detail"]
    assert (await running.ask())[0] == 200


async def test_a_new_definition_counts_and_a_broken_one_does_not(running: Running) -> None:
    out = json.dumps(review(bare(labels={"delegation-sidecar.io/inject": "disabled"}))).encode()
    assert (await running.ask(out))[1]["response"]["allowed"] is False
    definition = json.loads(RENDERED)
    (running.folder / "injection.json").write_text(json.dumps({**definition, "optOut": True}))
    await running.event("config.reloaded")
    assert (await running.ask(out))[1]["response"]["allowed"] is True
    (running.folder / "injection.json").write_text("{}")
    await running.event("config.refused")
    assert (await running.ask(out))[1]["response"]["allowed"] is True


async def test_an_expired_certificate_is_not_ready(running: Running) -> None:
    write_pair(running.folder, running.authority, ttl_s=60, issued_at=1_700_000_000)
    await running.event("config.reloaded")
    status, said = await running.probed("/readyz")
    assert (status, said.startswith("certificate: ")) == (503, True)


async def test_it_ends_in_order(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    await running.event("stopped")
    assert await asyncio.wait_for(running.process.wait(), PATIENCE_S) == 0


@pytest.mark.parametrize("missing", ["tls.crt", "injection.json"])
async def test_without_certificate_or_definition_it_does_not_start(
    tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path)
    (tmp_path / "injection.json").write_bytes(RENDERED)
    (tmp_path / missing).unlink()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.cli", "injector"),
        *(f"--injection={tmp_path / 'injection.json'}", f"--tls={tmp_path}"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, said.startswith(b"sidecar injector: ")) == (2, True)


@pytest.mark.parametrize("address", ["nowhere", "7445", ":7445", "host:x", "host:70000"])
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["injector", "--injection=x", "--tls=x", f"--listen={address}"])
    assert ended.value.code == 2
