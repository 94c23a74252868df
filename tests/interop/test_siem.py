"""The snippet of docs/siem.md on a real syslog-ng: each record reaches the SIEM once, as the export writes it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.interop.engine import require

ROOT = Path(__file__).parents[2]
RECORDS = (ROOT / "tests" / "audit" / "recorded" / "writer.records").read_bytes().splitlines(keepends=True)
WAIT_S = 60

Request = tuple[str, str, bytes]


def snippet() -> str:
    """Return the configuration as the page shows it."""
    section = (ROOT / "docs" / "siem.md").read_text().partition("## syslog-ng")[2]
    return section.split("```")[1].removeprefix("conf\n").strip() + "\n"


@contextmanager
def server() -> Iterator[tuple[str, queue.Queue[Request]]]:
    """Serve what takes bulk requests, and tell each one."""
    requests: queue.Queue[Request] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            requests.put((self.path, self.headers["Content-Type"], content))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", requests
        listening.shutdown()


@contextmanager
def syslog_ng(folder: Path, text: str) -> Iterator[None]:
    (folder / "syslog-ng.conf").write_text(text)
    words = ["syslog-ng", "-F", "--no-caps", "-e", "-f", str(folder / "syslog-ng.conf")]
    words += [f"--{name}={folder / name}" for name in ("persist-file", "pidfile", "control")]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(words, env={**os.environ, "PATH": path}, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(WAIT_S)


def events_of(requests: queue.Queue[Request], count: int) -> list[tuple[str, bytes]]:
    """Wait for so many events; return the id and the line of each."""
    found: list[tuple[str, bytes]] = []
    while len(found) < count:
        path, kind, content = requests.get(timeout=WAIT_S)
        assert (path, kind) == ("/logs-sidecar.records-default/_bulk", "application/x-ndjson")
        assert content.endswith(b"\n")  # Elasticsearch refuses the last line otherwise
        lines = content.splitlines()
        found += zip((json.loads(head)["create"]["_id"] for head in lines[::2]), lines[1::2], strict=True)
    return found


def exported(records: Path) -> list[bytes]:
    words = [sys.executable, "-m", "sidecar", "audit", "export", "--as", "ecs", str(records)]
    return subprocess.run(words, check=True, capture_output=True).stdout.splitlines()


@pytest.fixture(autouse=True)
def installed() -> None:
    """Skip without syslog-ng; continuous integration must have it."""
    found = shutil.which("syslog-ng", path=f"{os.environ['PATH']}:/usr/sbin")
    require(None if found else "syslog-ng is not on PATH; apt install syslog-ng-core syslog-ng-mod-http")


def test_each_record_arrives_once_as_it_is_exported_and_new_ones_follow(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_bytes(b"".join(RECORDS[:-1]))
    with server() as (url, requests):
        text = snippet().replace("/var/log/sidecar/records.jsonl", str(records))
        with syslog_ng(tmp_path, text.replace("https://elastic.example:9200", url)):
            arrived = events_of(requests, len(RECORDS) - 1)
            assert [line for _, line in arrived] == exported(records)
            with records.open("ab") as appended:
                appended.write(RECORDS[-1])
            arrived += events_of(requests, 1)
        assert requests.empty()
    assert [line for _, line in arrived] == exported(records)
    names = [f"{record['run']}-{record['seq']}" for record in map(json.loads, RECORDS)]
    assert [name for name, _ in arrived] == names


def test_a_line_that_is_no_record_stops_nothing_and_does_not_arrive(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_bytes(RECORDS[0] + b"nothing\n" + RECORDS[1])
    with server() as (url, requests):
        text = snippet().replace("/var/log/sidecar/records.jsonl", str(records))
        with syslog_ng(tmp_path, text.replace("https://elastic.example:9200", url)):
            arrived = events_of(requests, 2)
    assert [json.loads(line)["event"]["sequence"] for _, line in arrived] == [1, 2]
