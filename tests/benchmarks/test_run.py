from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.native import BuildError, build, http2_missing
from benchmarks.run import _measure_all, _possible, main
from benchmarks.sample import Sample
from benchmarks.scenarios import SCENARIOS


def test_an_unknown_scenario_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nonsense"]) == 2
    assert "inbound-500" in capsys.readouterr().err


def test_without_the_base_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--only", "inbound"]) == 1
    assert "apt-get install haproxy" in capsys.readouterr().err


def test_without_the_headers_of_openssl_the_fix_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'connection.h:6:10: fatal error: openssl/ssl.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="apt-get install libssl-dev"):
        build(tmp_path / "bin")


def test_without_the_headers_of_nghttp2_only_http2_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\ncat >/dev/null\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    scenarios = [one for one in SCENARIOS if one.name in {"inbound", "http2", "grpc-unary"}]
    possible, missing = _possible(scenarios)
    assert [one.name for one in possible] == ["inbound"]
    assert missing == {"HTTP/2, in all peers": http2_missing()}
    assert main(["--only", "http2"]) == 1
    assert "apt-get install libnghttp2-dev" in capsys.readouterr().err
    compiler.write_text("#!/bin/sh\ncat >/dev/null\n")
    assert _possible(scenarios) == (scenarios, {})


def test_a_run_that_is_interrupted_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted by Ctrl-C in the second round, at the second of two peers."""
    left = [None, None, None]

    def measured(_rig: Any, peer: Any, scenario: Any, *, seconds: float, number: int) -> Sample:
        del seconds
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return Sample(scenario.name, peer.name, number, 200, {"requests": 1, "cpu_s": 1.0, "statuses": {}}, 1.0, 1.0)

    monkeypatch.setattr("benchmarks.run.measure", measured)
    monkeypatch.setattr(Sample, "told", "")
    peers: Any = [SimpleNamespace(name="first"), SimpleNamespace(name="second")]
    scenario: Any = SimpleNamespace(name="inbound", suits=lambda _peer: True)
    samples = _measure_all(SimpleNamespace(), peers, [scenario], rounds=2, seconds=1.0)  # type: ignore[arg-type]
    assert [(one.peer, one.round) for one in samples] == [("first", 0), ("second", 0), ("second", 1)]
    assert "interrupted" in capsys.readouterr().err
