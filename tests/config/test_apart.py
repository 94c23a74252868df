import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.config import load_apart, load_sidecar, load_sts
from sidecar.config.settings import SidecarSettings
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import ConfigError
from tests.config.documents import EXAMPLES, written

WRITER = SpiffeId("spiffe://acme.example/agent/writer")


@pytest.mark.parametrize("name", ["agent", "entry", "tool"])
def test_settings_loaded_apart_are_the_same(name: str) -> None:
    here = load_sidecar(EXAMPLES / f"{name}.yaml", {})
    apart = load_apart(load_sidecar, EXAMPLES / f"{name}.yaml", {})
    assert isinstance(apart, SidecarSettings)
    assert (apart.inbound, apart.outbound, apart.exchange, apart.entry) == (
        here.inbound,
        here.outbound,
        here.exchange,
        here.entry,
    )
    assert (apart.keys, apart.issuers, apart.identity) == (here.keys, here.issuers, here.identity)
    assert apart.inbound_routes.routes == here.inbound_routes.routes
    assert all(peer.trust_domain for route in apart.inbound_routes.routes for peer in route.peers)
    assert apart.policy(WRITER, 1).outbound.routes == here.outbound_routes.routes


def test_a_token_services_settings_too() -> None:
    assert load_apart(load_sts, EXAMPLES / "sts.yaml", {}) == load_sts(EXAMPLES / "sts.yaml", {})


def test_every_problem_comes_back(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as here:
        load_sidecar(written(tmp_path, {"a": 1, "b": 2}), {})
    with pytest.raises(ConfigError) as apart:
        load_apart(load_sidecar, written(tmp_path, {"a": 1, "b": 2}), {})
    assert apart.value.problems == here.value.problems


def test_a_loader_that_dies_is_no_settings(tmp_path: Path) -> None:
    def die(path: Path, environ: Mapping[str, str]) -> None:
        os._exit(9)

    with pytest.raises(RuntimeError):
        load_apart(die, tmp_path, {})


def test_what_loading_needs_is_not_kept() -> None:
    code = (
        "import sys; from pathlib import Path; from sidecar.config import load_apart, load_sidecar; "
        f"load_apart(load_sidecar, Path({str(EXAMPLES / 'agent.yaml')!r}), {{}}); "
        "print([name for name in ('pydantic', 'pydantic_core', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
