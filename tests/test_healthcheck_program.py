"""The image's health check, which starts no interpreter: each answer is that of ``sidecar healthcheck``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
import yaml

from sidecar.healthcheck import network_addresses, probe_of
from tests.test_healthcheck import LACKING, READY, free_address, probe

ROOT: Final = Path(__file__).parent.parent
CHECKED: Final = ("-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile it with checks of memory; the image's is compiled by its Dockerfile."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("program") / "healthcheck"
    source = str(ROOT / "sidecar" / "healthcheck.c")
    for options in (CHECKED, CHECKED[:3]):  # a compiler may come without its sanitizers
        done = subprocess.run(
            [compiler, *options, "-o", str(made), source], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return made
    pytest.fail(done.stderr)


def run(program: Path, *words: str, prefix: Sequence[str] = (), **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [*prefix, str(program), *words],
        env={"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=0", **environ},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_probe_that_is_ready_is_well_and_one_that_is_not_says_why(program: Path) -> None:
    with probe(READY) as address:
        assert run(program, "--probe", address) == (0, "")
    with probe(LACKING) as address:
        code, said = run(program, "--probe", address)
    assert (code, "no identity yet\nno keys" in said) == (1, True)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 ", b"\x16\x03\x01", b"HTTP/1.1 2000 x\r\n\r\n"]
)
def test_what_speaks_no_http_is_not_well(program: Path, answer: bytes) -> None:
    with probe(answer) as address:
        assert run(program, "--probe", address)[0] == 1


@pytest.mark.parametrize("address", [None, "nonsense", "127.0.0.1:nonsense", "", "x" * 400, "[::1]:1", "[", "/nowhere"])
@pytest.mark.parametrize("option", ["--probe", "--connect"])
def test_where_nobody_listens_it_is_not_well_and_it_says_where(program: Path, option: str, address: str | None) -> None:
    address = free_address() if address is None else address
    code, said = run(program, option, address)
    assert (code, said.startswith(f"{address} ")) == (1, True)


@pytest.mark.parametrize(("options", "path"), [((), b"GET /readyz "), (("--live",), b"GET /livez ")])
def test_it_asks_for_readiness_or_for_life(program: Path, options: tuple[str, ...], path: bytes) -> None:
    asked: list[bytes] = []
    with probe(READY, asked) as address:
        assert run(program, "--probe", address, *options)[0] == 0
    assert asked[0].startswith(path)


def test_it_connects_to_a_port_of_a_name_and_to_a_socket(program: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for host in ("127.0.0.1", "localhost"):
            assert run(program, "--connect", f"{host}:{listener.getsockname()[1]}") == (0, "")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert run(program, "--connect", str(tmp_path / "s"))[0] == 1
        listener.listen()
        assert run(program, "--connect", str(tmp_path / "s")) == (0, "")


@pytest.mark.parametrize("words", [["--wait=3"], ["--probe"], ["nonsense"]])
def test_an_unknown_option_is_not_well(program: Path, words: list[str]) -> None:
    code, said = run(program, *words)
    assert (code, "is no option" in said) == (1, True)


EXAMPLES: Final = sorted([*(ROOT / "config").rglob("*.yaml"), *(ROOT / "compose").glob("*.yaml")])
TEXTS: Final = (
    "",
    "inbound: {}\n",
    "probe: 7\n",
    "probe:\n",
    "probe: {agent: [/healthz]}\ninbound: {listen: 0.0.0.0:1}\n",
    "probe:\n  agent: [/healthz]\ninbound:\n  listen: 0.0.0.0:1\n",
    "inbound:\n  probe:\n    listen: 0.0.0.0:1\n",
    "# probe: {listen: 0.0.0.0:1}\nprobe: {listen: 127.0.0.1:{port}}\n",
    "probe: {agent: [/healthz], listen: 127.0.0.1:{port}}  # why\n",
    'probe: {"listen": "0.0.0.0:{port}"}\n',
    "probe:\n  # where Prometheus looks\n  listen: 0.0.0.0:{port}  # any\n",
    "probe:\n  agent: [/healthz]\n# a line\n\n  listen: '127.0.0.1:{port}'\ninbound: {listen: 0.0.0.0:1}\n",
    '"probe":\n    listen: 127.0.0.1:{port}\n',
    "a: 1\r\nprobe:\r\n  listen: 127.0.0.1:{port}\r\n",
    "probe: {listen: localhost:{port}}",
)


@pytest.mark.parametrize("text", TEXTS)
def test_the_probe_is_where_the_other_one_finds_it(program: Path, text: str, tmp_path: Path) -> None:
    port = int(free_address().rpartition(":")[2])
    whole, config = text.replace("{port}", str(port)), tmp_path / "sidecar.yaml"
    config.write_bytes(whole.encode())
    wanted = probe_of({}, config)
    assert (str(port) in wanted) == ("{port}" in text)
    assert run(program, "--config", str(config))[1] == f"{wanted} gives no answer\n"
    config.write_text(json.dumps(yaml.safe_load(whole), indent=1))  # and the same as JSON
    assert run(program, "--config", str(config))[1] == f"{wanted} gives no answer\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_it_finds_the_probe_of_every_example(program: Path, path: Path) -> None:
    said = run(program, "--config", str(path))[1]
    assert said.startswith(f"{probe_of({}, path)} ") or "identity" in said  # somebody may listen there


def test_a_variable_wins_over_the_settings_and_no_file_is_the_default(program: Path, tmp_path: Path) -> None:
    port = free_address().rpartition(":")[2]
    for listen, address in ((f"0.0.0.0:{port}", f"127.0.0.1:{port}"), (f"[::]:{port}", f"[::1]:{port}")):
        said = run(program, "--config", str(tmp_path / "none"), SIDECAR__PROBE__LISTEN=listen)[1]
        assert said == f"{address} gives no answer\n"


def test_without_a_network_it_ends_the_first_process(program: Path) -> None:
    """In a namespace of its own, with loopback alone; its first process is a shell that tells of the signal."""
    unshare = shutil.which("unshare")
    alone = [unshare or "", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc"]
    if unshare is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces cannot be made here")
    said = subprocess.run([*alone, str(program), "--network"], capture_output=True, check=False)
    assert (said.returncode, said.stderr) == (1, b"the network has only loopback\n")
    script = f'trap "echo told; exit 3" TERM; "{program}" --restart-without-network --connect 127.0.0.1:1; exit 4'
    done = subprocess.run([*alone, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (3, "told\n"), done.stderr
    assert "only loopback left" in done.stderr
    if network_addresses():  # and with one it does not
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            assert run(program, "--restart-without-network", "--connect", address) == (0, "")
        assert run(program, "--network") == (0, "")
