"""The library for agents on Node: its own tests, on Node 24 and on an older one that is on PATH."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sidecar import __version__
from tests.interop import agents
from tests.interop.engine import require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _installed() -> None:
    require(agents.missing())


@pytest.mark.parametrize("number", [0, 1])
def test_its_tests_pass(number: int) -> None:
    nodes = agents.nodes()
    if number >= len(nodes):
        pytest.skip("there is no other Node on PATH")
    folder = agents.node_folder()
    said = agents.run(
        nodes[number],
        "--test",
        "--test-timeout=60000",
        "--test-reporter=tap",
        *sorted(folder.glob("*.test.mjs")),
        cwd=folder,
        NODE_OPTIONS="",
    )
    assert re.search(r"^# pass (\d+)", said, re.MULTILINE)
    assert re.search(r"^# (?:fail|skipped|cancelled) [1-9]", said, re.MULTILINE) is None


def test_its_types_fit_programs_in_typescript_that_are_strict() -> None:
    folder = agents.node_folder()
    agents.run(agents.node(), "node_modules/typescript/bin/tsc", "--project", "tsconfig.json", cwd=folder)


def test_a_program_that_uses_it_wrongly_does_not_compile() -> None:
    folder = agents.node_folder()
    wrong = folder / "wrong.ts"
    wrong.write_text('import { forwarding } from "delegation-agent";\nforwarding(fetch, { outbnd: "" });\n')
    try:
        with pytest.raises(AssertionError, match="outbnd"):
            agents.run(agents.node(), "node_modules/typescript/bin/tsc", "--project", "tsconfig.json", cwd=folder)
    finally:
        wrong.unlink()


def test_it_depends_on_nothing_and_has_the_version_of_all() -> None:
    package = json.loads((Path(agents.ROOT) / "agent-node/package.json").read_text())
    assert (package["version"], package["dependencies"]) == (__version__, {})
    assert package["peerDependencies"].keys() == {"@grpc/grpc-js"}
    assert package["peerDependenciesMeta"] == {"@grpc/grpc-js": {"optional": True}}
    for file in (agents.ROOT / "agent-node").glob("*.js"):
        own = ("node:", "./", *(["@grpc/grpc-js"] if file.name == "grpc.js" else []))
        for source in re.findall(r'from "([^"]+)"', file.read_text()):
            assert source.startswith(own), file
