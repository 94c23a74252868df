"""Senders of requests see no version of HTTP, and mypy checks it: no cast makes one class pass as another."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

import sidecar
from sidecar.errors import Reason
from sidecar.wire.upstream_errors import StaleConnection, closed_unanswered

ROOT: Final = Path(sidecar.__file__).parent

# Casts correct the types of libraries. A cast to a class of ours would hide from mypy what that class does not have.
OF_LIBRARIES: Final = {
    "asyncio.Transport": "asyncio says BaseTransport to every protocol, and TCP and TLS have more",
    "Callable[[bytes], list[Field]]": "re says list[Any]",
    "Sequence[Field]": "h2 allows text and other tuples, which a decoder of bytes never returns",
    "list[Field]": "h2 says Iterable[Header]",
}


def casts_in(folder: Path) -> set[tuple[str, str]]:
    return {
        (file.name, ast.unparse(call.args[0]).strip("'"))
        for file in folder.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "cast"
    }


@pytest.mark.parametrize("room", ["wire", "proxy", "features"])
def test_casts_correct_the_types_of_libraries_alone(room: str) -> None:
    unknown = [(file, kind) for file, kind in casts_in(ROOT / room) if kind not in OF_LIBRARIES]
    assert unknown == [], "give the value its type, or a Protocol; only a library's type may be corrected"


def test_the_table_of_casts_names_no_other() -> None:
    used = {kind for room in ("wire", "proxy", "features") for _, kind in casts_in(ROOT / room)}
    assert used == OF_LIBRARIES.keys()


@pytest.mark.parametrize("kept", [True, False])
def test_only_the_loss_of_a_kept_connection_is_stale(kept: bool) -> None:
    error = closed_unanswered(kept=kept)
    assert isinstance(error, StaleConnection) is kept
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
