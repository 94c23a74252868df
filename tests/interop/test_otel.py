"""A real OpenTelemetry Collector: one trace over three hops arrives, by TLS, with the parents that it should have."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.traced_mesh import EXCHANGES, THREE_HOPS, parents, traced_mesh
from tests.integration.world import free_port, until
from tests.interop.engine import require

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
WAIT_S = 30


@dataclass(frozen=True, slots=True)
class Told:
    """A span as the collector wrote it."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    resource: dict[str, str]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Running:
    """A collector that runs."""

    url: str
    ca: Path
    traces: Path
    logs: Path

    def spans(self) -> list[Told]:
        return [
            Told(
                span["name"], span["traceId"], span["spanId"], span.get("parentSpanId", ""), span["kind"],
                values(resource["resource"]["attributes"]), values(span["attributes"]),
            )
            for line in lines(self.traces)
            for resource in line["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]  # fmt: skip

    def bodies(self) -> list[str]:
        return [
            record["body"]["stringValue"]
            for line in lines(self.logs)
            for resource in line["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]


def values(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in pairs}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []


def program() -> str | None:
    return os.environ.get("OTELCOL") or shutil.which("otelcol") or shutil.which("otelcol-contrib")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Running]:
    require(None if program() else "otelcol is neither in OTELCOL nor on PATH; make interop-otel builds one with Go")
    with started(tmp_path) as running:
        yield running


@contextmanager
def started(folder: Path) -> Iterator[Running]:
    cert, key = certificate(folder / "tls")
    port = free_port()
    traces, logs = folder / "traces.json", folder / "logs.json"
    config = {
        "receivers": {
            "otlp": {
                "protocols": {
                    "http": {
                        "endpoint": f"127.0.0.1:{port}",
                        "tls": {"cert_file": str(cert), "key_file": str(key)},
                    }
                }
            }
        },
        "exporters": {
            "file/traces": {"path": str(traces), "flush_interval": "100ms"},
            "file/logs": {"path": str(logs), "flush_interval": "100ms"},
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "traces": {"receivers": ["otlp"], "exporters": ["file/traces"]},
                "logs": {"receivers": ["otlp"], "exporters": ["file/logs"]},
            },
        },
    }
    file = folder / "otelcol.yaml"
    file.write_text(yaml.safe_dump(config))
    said = (folder / "otelcol.log").open("w+b")
    process = subprocess.Popen([str(program()), "--config", f"file:{file}"], stdout=said, stderr=said)
    try:
        ends_at = time.monotonic() + WAIT_S
        while b"Everything is ready" not in (folder / "otelcol.log").read_bytes():
            assert process.poll() is None, (folder / "otelcol.log").read_text()
            assert time.monotonic() < ends_at, (folder / "otelcol.log").read_text()
            time.sleep(0.05)
        yield Running(f"https://127.0.0.1:{port}", cert, traces, logs)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        said.close()


async def test_a_real_collector_gets_one_trace_over_three_hops(collector: Running) -> None:
    async with traced_mesh(collector.url, ca=str(collector.ca), records=True, timeout_s=5.0) as mesh:
        answer = await mesh.ask(mesh.log_in(), ("traceparent", f"00-{TRACE}-{CALLER}-01"))
        assert answer.status == 200
        await until(lambda: len(collector.spans()) >= 9)
        written = mesh.sidecars["crm"].records_path.read_text().splitlines()
        await until(lambda: set(written) <= set(collector.bodies()))
        counts = mesh.sidecars["crm"].server.metrics.telemetry()
        assert counts["spans", "sent"] == 1
        assert sum(count for (_, result), count in counts.items() if result != "sent") == 0
    spans = collector.spans()
    assert {span.trace_id for span in spans} == {TRACE}
    assert parents(spans, CALLER) == (THREE_HOPS, EXCHANGES)
    assert "alice" not in collector.traces.read_text()


async def test_a_collector_whose_certificate_is_of_another_ca_gets_nothing(collector: Running, tmp_path: Path) -> None:
    other, _ = certificate(tmp_path / "other")
    async with traced_mesh(collector.url, ca=str(other)) as mesh:
        assert (await mesh.ask(mesh.log_in())).status == 200
        metrics = mesh.sidecars["crm"].server.metrics
        await until(lambda: metrics.telemetry()["spans", "failed"] == 1)
    await asyncio.sleep(0)
    assert collector.spans() == []
