"""Each distribution's wheel has its own files alone; the product's has no tool for development."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Final

import pytest

import delegation_agent
import delegation_audit
import delegation_core
import sidecar
import sidecar_dev

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = re.compile(r"attack|careless|demo|sidecar_dev|user_issuer|workload_server", re.IGNORECASE)
OTHERS: Final = {"sidecar", "delegation_audit", "asyncio", "aiohttp", "pydantic", "yaml", "rich", "jinja2", "duckdb"}
MENTIONS: Final = {"cli.py"}  # names the way to install them


def wheel(source: Path, folder: Path) -> zipfile.ZipFile:
    """Build without a network: the locked backend is installed."""
    build = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, folder], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sources, so that a build leaves nothing in the working copy."""
    copy = tmp_path_factory.mktemp("sources")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for part in ("core", "audit", "sidecar", "dev", "agent"):
        shutil.copytree(ROOT / part, copy / part, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def metadata(built: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in built.namelist() if path.endswith(f".dist-info/{name}"))
    return built.read(path).decode()


def test_the_product_s_wheel_has_no_tool_for_development(sources: Path, tmp_path: Path) -> None:
    with wheel(sources, tmp_path) as built:
        names = built.namelist()
        assert "sidecar/proxy/journeys/inbound.py" in names
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sidecar"}
        assert [name for name in names if TOOLS.search(name)] == []
        needed = Parser().parsestr(metadata(built, "METADATA")).get_all("Requires-Dist") or []
        assert [
            one for one in needed if re.match(r"rich|sidecar|delegation-audit", one) and "extra ==" not in one
        ] == []
        assert f"delegation-core=={sidecar.__version__}" in needed


def test_the_core_is_a_wheel_that_needs_three_libraries(sources: Path, tmp_path: Path) -> None:
    with wheel(sources / "core", tmp_path) as built:
        names = built.namelist()
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"delegation_core"}
        assert {"delegation_core/decide.py", "delegation_core/records/record.py", "delegation_core/py.typed"} <= set(
            names
        )
        needed = Parser().parsestr(metadata(built, "METADATA")).get_all("Requires-Dist") or []
        assert sorted(re.match(r"[\w-]+", one)[0] for one in needed) == ["PyJWT", "cryptography", "orjson"]  # type: ignore[index]


def test_the_audit_is_a_wheel_with_a_command_of_its_own(sources: Path, tmp_path: Path) -> None:
    with wheel(sources / "audit", tmp_path) as built:
        names = built.namelist()
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"delegation_audit"}
        assert {"delegation_audit/report/report.html", "delegation_audit/chains/command.py"} <= set(names)
        told = metadata(built, "entry_points.txt")
        assert "delegation-audit = delegation_audit.command:main" in told
        assert "[sidecar.commands]\naudit = delegation_audit.command:add_commands" in told
        needed = Parser().parsestr(metadata(built, "METADATA")).get_all("Requires-Dist") or []
        assert [one for one in needed if re.match(r"sidecar|delegation-sidecar|aiohttp|pydantic", one)] == []


def test_the_core_imports_alone() -> None:
    """It loads its three libraries, what these need, and nothing else."""
    code = (
        "import sys, importlib, pkgutil, delegation_core;"
        "found = pkgutil.walk_packages(delegation_core.__path__, 'delegation_core.');"
        "[importlib.import_module(one.name) for one in found];"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {OTHERS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_tools_are_a_wheel_that_adds_two_commands(sources: Path, tmp_path: Path) -> None:
    with wheel(sources / "dev", tmp_path) as built:
        names = built.namelist()
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sidecar_dev"}
        assert {"sidecar_dev/attack.py", "sidecar_dev/careless_sts.py", "sidecar_dev/demo.py"} <= set(names)
        told = metadata(built, "entry_points.txt")
        assert re.findall(r"^(\w+) = ", told, re.MULTILINE) == ["demo", "dev"]
        assert "[sidecar.commands]" in told


def test_the_library_for_agents_is_a_wheel_that_needs_nothing(sources: Path, tmp_path: Path) -> None:
    with wheel(sources / "agent", tmp_path) as built:
        names = built.namelist()
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"delegation_agent"}
        assert {"delegation_agent/asgi.py", "delegation_agent/py.typed"} <= set(names)
        assert Parser().parsestr(metadata(built, "METADATA")).get_all("Requires-Dist") is None


def test_the_library_for_agents_imports_alone_and_loads_no_client() -> None:
    """Its modules for one client each import that client, and no other does."""
    code = (
        "import sys, delegation_agent, delegation_agent.asgi, delegation_agent.wsgi, delegation_agent.urllib;"
        "print({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'})"
    )
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'agent')!r}); {code}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("{'delegation_agent'}", "")


def test_the_library_for_agents_knows_nothing_of_the_product() -> None:
    for file in (ROOT / "agent").rglob("*.py"):
        assert not re.search(r"^(?:from|import) sidecar", file.read_text(encoding="utf-8"), re.MULTILINE), file


def test_nothing_of_the_product_names_the_tools() -> None:
    for file in (one for part in ("core", "audit", "sidecar") for one in (ROOT / part).rglob("*.py")):
        if file.name not in MENTIONS:
            assert not re.search(r"sidecar[_-]dev|careless", file.read_text(encoding="utf-8")), file


def test_all_have_one_version() -> None:
    others = (delegation_agent, delegation_audit, delegation_core, sidecar_dev)
    assert {one.__version__ for one in others} == {sidecar.__version__}
    assert json.loads((ROOT / "agent-node" / "package.json").read_text())["version"] == sidecar.__version__
    project = tomllib.loads((ROOT / "dev" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {f"delegation-{name}=={sidecar.__version__}" for name in ("audit", "sidecar")} <= {*project["dependencies"]}
