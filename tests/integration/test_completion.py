"""Completion in real shells, each where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from sidecar.completion import script

pytestmark = pytest.mark.integration

# Each prints the candidates for the words of the command line in "$2", by the script in "$1".
BASH: Final = """
source "$1"
read -ra COMP_WORDS <<<"$2"; [[ $2 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2}
read -r _ _ function _ < <(complete -p sidecar | sed 's/.*\\(-F\\)/x \\1/')
$function sidecar "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH: Final = 'source $argv[1]; complete -C "$argv[2]" | string replace -r "\\t.*" ""'
# zsh finds the script in a folder of fpath, by its first line.
ZSH: Final = """
mkdir -p $HOME/functions; cp "$1" $HOME/functions/_sidecar
fpath=($HOME/functions $fpath)
autoload -Uz compinit; compinit -D -u
autoload +X _sidecar && print $_comps[sidecar]
"""


def candidates(shell: str, code: str, line: str, folder: Path) -> set[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    file = folder / f"sidecar.{shell}"
    file.write_text(script(shell))
    words = [program, *(["-c", code] if shell == "fish" else ["-c", code, shell]), str(file), line]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    )
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.parametrize(("shell", "code"), [("bash", BASH), ("fish", FISH)])
def test_a_shell_completes_commands_and_options(shell: str, code: str, tmp_path: Path) -> None:
    assert {"run", "check", "audit", "completion"} <= candidates(shell, code, "sidecar ", tmp_path)
    assert {"attribution", "chains"} <= candidates(shell, code, "sidecar audit ", tmp_path)
    assert "--workers" in candidates(shell, code, "sidecar run --", tmp_path)
    assert "--workers" not in candidates(shell, code, "sidecar check --", tmp_path)
    assert candidates(shell, code, "sidecar completion ", tmp_path) >= {"bash", "zsh", "fish"}


def test_zsh_takes_the_script_for_the_command(tmp_path: Path) -> None:
    assert candidates("zsh", ZSH, "sidecar ", tmp_path) == {"_sidecar"}


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "sidecar", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("sidecar ")) == (0, True)


def test_printing_a_script_imports_no_other_command_and_no_library() -> None:
    code = (
        "import sys, sidecar.cli; sidecar.cli.main(['completion', 'bash'])\n"
        "told = {name for name in sys.modules if name.startswith(('delegation_core.', 'sidecar.'))}\n"
        "print(sorted(told), {'shtab', 'aiohttp', 'pydantic', 'cryptography'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    core = [f"delegation_core.console{name}" for name in ("", ".examples", ".run")]
    ours = [*core, "sidecar.cli", "sidecar.completion", "sidecar.signals"]
    assert done.stdout.splitlines()[-1] == f"{ours} set()"
