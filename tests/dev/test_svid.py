from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar_dev.svid import Fetched, add_arguments, run, write

PLANNER = SpiffeId("spiffe://acme.example/agent/planner")


FETCHED = Fetched(spiffe_id=PLANNER, chain_pem=b"chain", key_pem=b"key", bundle_pem=b"bundle", jwt_svid="token")


def test_keys_and_tokens_are_written_for_their_owner_only(tmp_path: Path) -> None:
    write(FETCHED, tmp_path / "out")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"svid.pem": 0o644, "svid_key.pem": 0o600, "bundle.pem": 0o644, "jwt_svid.token": 0o600}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out" / "jwt_svid.token").read_text() == "token"


def test_what_was_fetched_does_not_show_its_secrets() -> None:
    assert "key" not in repr(FETCHED).replace("key_pem", "")
    assert "token" not in repr(FETCHED)


def test_the_command_without_an_identity_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path / "none", tmp_path / "out", "--timeout", "0.05") == 1
    assert "no identity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def exit_code(socket: Path, out: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--socket", str(socket), "--out", str(out), *options]))
