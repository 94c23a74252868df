"""A limit of address space that is sure to end the process is refused with the fix, and not by an abort in gRPC."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
import yaml

from tests.integration.world import START_S, World

pytestmark = pytest.mark.integration

_LIMITED = """
import resource, sys
size = int(sys.argv.pop(1)) << 20
resource.setrlimit(resource.RLIMIT_AS, (size, size))
from sidecar.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("source", "mib", "why"),
    [
        ("py-spiffe", 400, "RLIMIT_AS: is 400 MiB of addresses, and gRPC, of identity.source: py-spiffe, needs 2048"),
        (None, 200, "RLIMIT_AS: is 200 MiB of addresses, and this process needs 256"),
    ],
)
async def test_a_limit_that_is_too_low_is_named_with_its_fix(
    world: World, tmp_path: Path, source: str | None, mib: int, why: str
) -> None:
    settings = world.settings(identity={"workload_api": "unix:///run/api.sock"})
    if source is not None:
        settings["identity"]["source"] = source
    path = tmp_path / "sidecar.yaml"
    path.write_text(yaml.safe_dump(settings))
    words = [sys.executable, "-c", _LIMITED, str(mib), "run", "--config", str(path)]
    child = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(START_S):
        _, said = await child.communicate()
    assert child.returncode == 2
    assert why in said.decode()
    assert "ulimit -v unlimited" in said.decode()
