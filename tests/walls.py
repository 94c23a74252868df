"""Walls between the processes: the rooms that each one may load, and the most lines of the product that it may hold.

``ARCHITECTURE.md`` shows the table; ``tests/integration/test_walls.py`` starts every process and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
BEGIN: Final = "<!-- walls: written by `make docs` from tests/walls.py -->"
OTHERS: Final = {"delegation_core": "core", "delegation_audit": "audit"}  # packages by the folder of their distribution
END: Final = "<!-- /walls -->"


class Wall(NamedTuple):
    """The most that one process may load: ``lines`` of our Python, in these ``rooms``."""

    lines: int
    rooms: frozenset[str]


class Held(NamedTuple):
    """A process's own modules when it serves or has ended: the importer of each, and its lines."""

    importers: Mapping[str, str]

    @property
    def lines(self) -> int:
        """Lines of all of them."""
        return sum(map(lines_of, self.importers))

    def rooms(self) -> dict[str, int]:
        """Return the lines of each room."""
        rooms: dict[str, int] = {}
        for module in self.importers:
            rooms[room_of(module)] = rooms.get(room_of(module), 0) + lines_of(module)
        return rooms

    def chain(self, module: str) -> str:
        """Return the imports that brought a module, first importer first."""
        names = [module]
        while (importer := self.importers.get(names[0], "")) and importer not in names:
            names.insert(0, importer)
        return " → ".join(names)


def room_of(module: str) -> str:
    """Return the room of a module: the part of the sidecar, or the other distribution, that it is in."""
    package, _, rest = module.partition(".")
    return OTHERS.get(package) or rest.partition(".")[0]


def lines_of(module: str) -> int:
    """Return the lines of a module of ours."""
    package = module.partition(".")[0]
    path = ROOT.joinpath(*filter(None, [OTHERS.get(package), *module.split(".")]))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0


def _wall(lines: int, rooms: str) -> Wall:
    return Wall(lines, frozenset(rooms.split()))


_COMMAND: Final = "cli core signals "
_RECORDS: Final = _COMMAND + "audit "
_SERVING: Final = _COMMAND + "admission background file_watch identity libc_memory observe process serving wire "
_SETTINGS: Final = "config start "
_STS: Final = _SERVING + _SETTINGS + "sts sts_app sts_reload"
_SIDECAR: Final = _SERVING + _SETTINGS + "app engine exchange features proxy settings_watch "
_JUDGING: Final = (  # settings of sidecars and token services are loaded in the process itself
    _COMMAND + "admission config engine exchange file_watch identity libc_memory observe features proxy steps sts wire "
)

WALLS: Final[Mapping[str, Wall]] = {
    "sidecar, HTTP/1.1 alone": _wall(32_000, _SIDECAR + "assembly one_process reload"),
    "sidecar, HTTP/1.1 alone, native engine": _wall(32_000, _SIDECAR + "assembly one_process reload"),
    "sidecar, HTTP/2": _wall(36_500, _SIDECAR + "assembly one_process reload"),
    "parent of workers": _wall(27_500, _SIDECAR + "workers"),
    "token service": _wall(24_000, _STS),
    "token service, revocations": _wall(25_500, _STS + " steps"),
    "injector": _wall(13_000, _SERVING + "injector"),
    "healthcheck": _wall(600, "cli core healthcheck signals"),
    "status": _wall(4_500, _COMMAND + "identity observe reasons status"),
    "check": _wall(34_500, _JUDGING + "check"),
    "explain": _wall(37_000, _JUDGING + "explain reasons"),
    "sts doctor": _wall(9_500, _COMMAND + "doctor exchange identity"),
    "sts revoke": _wall(11_000, _COMMAND + "identity libc_memory revoke sts wire"),
    "audit all": _wall(16_500, _RECORDS),
    "audit attribution": _wall(5_000, _RECORDS),
    "audit chains": _wall(5_500, _RECORDS),
    "audit report": _wall(7_500, _RECORDS),
    "audit ratio": _wall(9_500, _RECORDS),
    "audit export": _wall(3_000, _RECORDS),
    "audit verify": _wall(4_000, _RECORDS),
    "audit credentials": _wall(6_500, _RECORDS),
    "audit selectors": _wall(6_000, _RECORDS),
    "audit suggest": _wall(4_500, _RECORDS),
    "audit replay": _wall(37_500, _JUDGING + "audit explain reasons"),
}


def page(walls: Mapping[str, Wall] = WALLS) -> str:
    """Return the block of ``ARCHITECTURE.md``."""
    rows = (f"| {name} | {wall.lines:,} | {_names(wall.rooms)} |" for name, wall in walls.items())
    head = ("| process | most lines | rooms that it may load |", "| --- | ---: | --- |")
    return "\n".join((BEGIN, "", *head, *rows, "", END))


def written(text: str) -> str:
    """Return a document with the block between its marks replaced."""
    before, _, rest = text.partition(BEGIN)
    return before + page() + rest.partition(END)[2]


def _names(rooms: Iterable[str]) -> str:
    return ", ".join(f"`{room}`" for room in sorted(rooms))


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")
