"""Records that wait for their export: a request of the native engine waits as its line."""

from __future__ import annotations

from sidecar.observe.telemetry.entries import SampledSpanId
from sidecar.observe.telemetry.kept import kept, record_of


def test_a_request_that_waits_for_its_export_is_its_line_alone() -> None:
    """The native engine's own object holds on to a token."""
    span_id = SampledSpanId("1" * 16, None, None)
    request: object = _Request(span_id)
    item = kept(request, b'{"event":"request","span_id":"1111111111111111"}')
    assert item == (span_id, b'{"event":"request","span_id":"1111111111111111"}')
    record = record_of(item)
    assert record == {"event": "request", "span_id": "1" * 16}
    assert record["span_id"] is span_id
    whole = {"event": "request", "span_id": span_id}
    assert record_of(kept(whole, b"{}")) is whole


class _Request:
    """A request of the native engine, as far as it is read."""

    def __init__(self, span_id: str) -> None:
        self._span_id = span_id

    def __getitem__(self, key: str) -> str:
        return {"span_id": self._span_id}[key]
