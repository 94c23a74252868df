"""Builds the wheel of the native engine into a folder: the same bytes from the same sources, compiler and linker.

    python .ci/native_wheel.py build/native [--target aarch64-unknown-linux-gnu] [--zig]

Cargo.lock has the hashes of the crates, requirements/native.txt those of maturin. Nothing locks the compiler.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CRATE = "sidecar/native"
NAME = "delegation-sidecar-native"


class ToolError(Exception):
    """A tool that the wheel needs is missing; the text says which."""


def build(source: Path, out: Path, epoch: int, *, target: str = "", zig: bool = False, clean: bool = False) -> None:
    """Build the wheel of the crate in ``source``. ``clean``: our crate as compiled earlier is removed, and so is this.

    Raises:
        ToolError: cargo or maturin is missing.
        SystemExit: a tool failed.
    """
    cargo, maturin = tools()
    environ = environment(os.environ, (cargo, maturin), epoch)
    manifest = source / CRATE / "Cargo.toml"
    # cargo compares times, and paths inside of the crate: older files of another folder would pass for compiled
    remove = (cargo, "clean", "--quiet", "--release", "--package", NAME, "--manifest-path", manifest)
    if clean:
        _run(remove, environ)
    words = ("build", "--quiet", "--locked", "--release", "--manifest-path", manifest, "--out", out)
    _run((maturin, *words, *(("--target", target) if target else ()), *(("--zig",) if zig else ())), environ)
    if clean:
        _run(remove, environ)


def tools() -> tuple[Path, Path]:
    """Return cargo, which may be where rustup puts it, and maturin, which `make` installs into .venv.

    Raises:
        ToolError: one of them is missing.
    """
    cargo = shutil.which("cargo") or shutil.which("cargo", path=Path.home() / ".cargo" / "bin")
    maturin = shutil.which("maturin", path=Path(sys.executable).parent)
    if cargo is None:
        raise ToolError("cargo is not on PATH; rustup.rs has it")
    if maturin is None:
        raise ToolError("maturin is not in .venv; make native installs it")
    return Path(cargo), Path(maturin)


def environment(environ: Mapping[str, str], programs: Sequence[Path], epoch: int) -> dict[str, str]:
    """Return the builder's environment: no path of this machine gets into the wheel, and no time but ``epoch``.

    The folders of the ``programs`` are first on PATH: maturin looks for ziglang in the Python that it finds there.
    """
    home = Path(environ.get("CARGO_HOME") or Path.home() / ".cargo")
    fixed = {
        "PATH": os.pathsep.join([*(str(one.parent) for one in programs), environ["PATH"]]),
        "CARGO_TARGET_DIR": environ.get("CARGO_TARGET_DIR") or str(ROOT / "build" / "native-target"),
        "CARGO_ENCODED_RUSTFLAGS": f"--remap-path-prefix={home}=/cargo",
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    return {**environ, **fixed}


def version(source: Path) -> str:
    """Return the version of the crate, which is the wheel's."""
    found: str = tomllib.loads((source / CRATE / "Cargo.toml").read_text())["package"]["version"]
    return found


def crates(source: Path) -> list[dict[str, Any]]:
    """Return the locked crates as components of a bill of materials; those that only compile it are ``excluded``.

    Raises:
        ToolError: cargo or maturin is missing.
        SystemExit: cargo failed.
    """
    cargo, _ = tools()
    words = ("tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    tree = _run((cargo, *words, "--manifest-path", source / CRATE / "Cargo.toml"), os.environ)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines()}
    found = []
    for one in tomllib.loads((source / CRATE / "Cargo.lock").read_text())["package"]:
        if one["name"] != NAME:
            purl = f"pkg:cargo/{one['name']}@{one['version']}"
            scope = "required" if (one["name"], f"v{one['version']}") in linked else "excluded"
            hashes = [{"alg": "SHA-256", "content": one["checksum"]}]
            facts = {"name": one["name"], "version": one["version"], "purl": purl, "bom-ref": purl, "hashes": hashes}
            found.append({"type": "library", "scope": scope, **facts})
    return found


def _run(words: Sequence[str | Path], environ: Mapping[str, str]) -> str:
    done = subprocess.run(words, env=environ, umask=0o022, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"native: {' '.join(map(str, words[:2]))} failed\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the wheel of the native engine into a folder.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", default="", help="of Rust, for another machine: aarch64-unknown-linux-gnu")
    parser.add_argument("--zig", action="store_true", help="link by ziglang: another machine, or an older glibc")
    arguments = parser.parse_args()
    try:
        epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
        build(ROOT, arguments.out.resolve(), epoch_s, target=arguments.target, zig=arguments.zig)
    except ToolError as missing:
        raise SystemExit(f"native: {missing}") from None
