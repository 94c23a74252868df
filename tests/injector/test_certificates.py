from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from delegation_core.errors import ConfigError
from sidecar.injector.certificates import ServingCertificate
from tests.identity.hostile import offer_group
from tests.injector.serving import write_pair


def test_a_pair_is_loaded_and_its_time_known(tmp_path: Path) -> None:
    write_pair(tmp_path)
    found = ServingCertificate(tmp_path)
    now = int(time.time())
    assert found.valid(now)
    assert found.valid(found.not_after)
    assert not found.valid(found.not_after + 1)
    assert not found.valid(found.not_before - 1)


def test_a_new_pair_counts_and_one_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, ttl_s=3600)
    found = ServingCertificate(tmp_path)
    before = found.not_after
    write_pair(tmp_path, ttl_s=7200)
    found.reload()
    assert found.not_after > before
    key = (tmp_path / "tls.key").read_bytes()
    write_pair(tmp_path, ttl_s=60)
    (tmp_path / "tls.key").write_bytes(key)  # of the previous pair
    with pytest.raises(ConfigError):
        found.reload()
    assert found.not_after > before


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_half_a_pair_is_none(tmp_path: Path, broken: str, content: bytes | None) -> None:
    write_pair(tmp_path)
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_bytes(content)
    with pytest.raises(ConfigError):
        ServingCertificate(tmp_path)


def shake(server: ssl.SSLContext, group: str | None) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    if group is not None:
        offer_group(client, group)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(4):
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting


@pytest.mark.parametrize("group", [None, "prime256v1"])
def test_a_client_agrees_on_p_256(tmp_path: Path, group: str | None) -> None:
    write_pair(tmp_path)
    shake(ServingCertificate(tmp_path).context, group)


@pytest.mark.parametrize("group", ["ffdhe2048", "ffdhe8192"])
def test_a_client_cannot_make_us_compute_in_a_finite_field(tmp_path: Path, group: str) -> None:
    write_pair(tmp_path)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.suitable.key.share"):
        shake(ServingCertificate(tmp_path).context, group)
