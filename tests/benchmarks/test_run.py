from pathlib import Path

import pytest

from benchmarks.native import BuildError, build
from benchmarks.run import main


def test_an_unknown_scenario_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nonsense"]) == 2
    assert "inbound-500" in capsys.readouterr().err


def test_without_the_base_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--only", "inbound"]) == 1
    assert "apt-get install haproxy" in capsys.readouterr().err


def test_without_the_headers_of_openssl_the_cure_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'connection.h:6:10: fatal error: openssl/ssl.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="apt-get install libssl-dev"):
        build(tmp_path / "bin")
