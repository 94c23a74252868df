"""Generates the page of metrics from a scrape: ``python -m sidecar.observe.docs docs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from delegation_core.records.record import OK
from sidecar.observe.exposition import Metric
from sidecar.observe.metrics import NO_ROUTE, Metrics
from sidecar.observe.scrape import scrape
from sidecar.observe.sink_space import SinkSpace, sink_metrics
from sidecar.observe.tally import OTHER

_WRITTEN: Final = "<!-- Written by `make docs`; edit sidecar/observe/scrape.py and docs.py instead. -->"
_HEAD: Final = """\
Served as text at `/metrics` of the probe listener, by sidecar and token service alike. Every label has a value from a
closed set: nothing a caller sends can create a series. Names, labels and buckets are an interface: a change is a line
of the changelog."""

LABELS: Final[Mapping[str, str]] = {
    "direction": "`inbound` or `outbound`",
    "route": f"a route's name from the settings; `{NO_ROUTE}` where none matched, `{OTHER}` for a removed one",
    "op": "`own`, `login`, or on routes of MCP, A2A and gRPC an operation that the settings list or, by its method,"
    f" `{OTHER}`",
    "decision": "`allow`, `deny` or `observed_deny`",
    "reason": f"a [reason code](reasons.md), or `{OK}`",
    "issuer": f"an issuer from the settings, or `{OTHER}`",
    "endpoint": "the place of a token endpoint in the settings, from `1`; or an adapter's name of another endpoint",
    "result": f"of an exchange `{OK}` or a [reason code](reasons.md); of a lookup `hit`, `miss` or `joined` (another"
    " caller's exchange was awaited); of a reload `ok` or `refused`; of an introspection `active` or `inactive`;"
    " of an identity update `taken`, `discarded`, `broken_bundle` or `lost` (the source);"
    " of telemetry `sent`, `failed` or `dropped`",
    "state": "of a replica of the token service `heard` or `silent`",
    "signal": "`spans` or `records`: [traces](tracing.md)",
    "bound": "of a settings document: `bytes`, `nodes`, `depth`, `files`, `targets`, `rules`, `self_rules`,"
    " `self_delegations`, `entries`, `groups` or `deny` ([bounds](sts.md#many-agents))",
    "cache": "`verdicts`, `permits`, `logins` (at an entry), `issued`, `tasks`, `contexts` or `handles`:"
    " [sizes](sizing.md#memory)",
    "kind": "of a population `human` or `machine`; of a revocation `subject`, `actor`, `txn`, `jti` or `login`",
    "sha256": "the first 12 characters of what `sha256sum` prints of the file",
    "trust_domain": "a trust domain with a bundle here",
    "version": "the running version",
    "engine": "`python` or `native`: [the native engine](native.md); a token service is always `python`",
}


def pages() -> Mapping[str, str]:
    """Return each page by its file name under ``docs/``."""
    return {
        "metrics.md": "\n".join(["# Metrics", "", _WRITTEN, "", _HEAD, "", *_table(), "", "## Labels", "", *_labels()])
    }


def families() -> list[Metric]:
    """Return every metric, also those that a scrape leaves out until they have a value."""
    metrics = Metrics()
    metrics.agent_up = lambda: True
    metrics.uncountersigned = lambda: 0
    metrics.deny_file = lambda: {"rows": 0, "sha256": "sha256", "error": None, "age_s": 0}
    metrics.revocation_book = lambda: 0.0
    metrics.replicas = dict
    metrics.records = lambda: sink_metrics(0, SinkSpace())
    return list(scrape(metrics))


def _table() -> Iterator[str]:
    yield "| name | type | labels | meaning |"
    yield "|---|---|---|---|"
    for family in families():
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        yield f"| `{family.text_name}` | {family.text_type} | {labels} | {family.documentation} |"


def _labels() -> Iterator[str]:
    yield "| label | values |"
    yield "|---|---|"
    for label, values in LABELS.items():
        yield f"| `{label}` | {values} |"
    yield ""


def main(folder: Path) -> None:
    """Write the pages."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
