"""A mesh whose sidecars send spans: front → planner → writer → crm."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sidecar.engine import EngineChoice
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings

SERVER: Final = 2
CLIENT: Final = 3
EXCHANGE: Final = "token exchange"
# Each span of a call over three hops below its parent; the numbers are kinds.
THREE_HOPS: Final = {
    "agent/front 3": "the caller",
    "agent/planner 2": "agent/front 3",
    "agent/planner 3": "agent/planner 2",
    "agent/writer 2": "agent/planner 3",
    "agent/writer 3": "agent/writer 2",
    "tool/crm 2": "agent/writer 3",
}
EXCHANGES: Final = ["agent/front 3", "agent/planner 3", "agent/writer 3"]


class AnySpan(Protocol):
    """A span as some collector tells it: ids in hex."""

    @property
    def name(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    @property
    def parent(self) -> str: ...
    @property
    def kind(self) -> int: ...
    @property
    def resource(self) -> Mapping[str, Any]: ...


S = TypeVar("S", bound=AnySpan)


@asynccontextmanager
async def traced_mesh(url: str, *, engine: EngineChoice = "auto", **tracing: Any) -> AsyncIterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        key = Path(folder) / "subject.key"
        key.write_text("0123456789abcdef0123456789abcdef")
        key.chmod(0o600)
        section = {"endpoint": url, "subject_key": str(key), "timeout_s": 1.0, **tracing}

        def adjust(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
            if name != "sts":
                settings.update(tracing=section, engine=engine)

        async with open_mesh(Path(folder), adjust) as mesh:
            yield mesh


def tree(spans: Iterable[S]) -> dict[tuple[str, int], S]:
    """Return the spans by the name of their service and their kind, without exchanges."""
    calls = [span for span in spans if span.name != EXCHANGE]
    named = {(span.resource["service.name"], span.kind): span for span in calls}
    assert len(named) == len(calls)
    return named


def parents(spans: Iterable[S], caller: str) -> tuple[dict[str, str], list[str]]:
    """Return the parent of each call, and the calls that have an exchange. ``caller`` is the span of whoever asked."""
    spans = list(spans)
    calls = tree(spans)
    names = {caller: "the caller", **{span.span_id: f"{name} {kind}" for (name, kind), span in calls.items()}}
    of_calls = {f"{name} {kind}": names[span.parent] for (name, kind), span in calls.items()}
    return of_calls, sorted(names[span.parent] for span in spans if span.name == EXCHANGE)
