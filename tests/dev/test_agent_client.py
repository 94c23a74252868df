from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar_dev import agent_client


def test_authorities_that_change_are_read_anew_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    first = agent_client.opener()
    assert agent_client.opener() is first
    os.utime(file, (1, 1))
    assert agent_client.opener() is not first
