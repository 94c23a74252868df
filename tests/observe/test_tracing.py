import re

import pytest

from sidecar.observe.tracing import ids, next_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()


def test_a_valid_trace_goes_on_under_a_new_span() -> None:
    context = next_traceparent([GOOD], [b"a=1", b"b=2,c=3"])
    assert context.trace_id == TRACE
    assert context.span_id != PARENT
    assert context.traceparent == f"00-{TRACE}-{context.span_id}-01"
    assert context.tracestate == "a=1,b=2,c=3"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([GOOD, GOOD], id="doubled"),
        pytest.param([b""], id="empty"),
        pytest.param([GOOD.upper()], id="upper-case"),
        pytest.param([b"ff" + GOOD[2:]], id="version-ff"),
        pytest.param([b"00-" + b"0" * 32 + GOOD[35:]], id="zero-trace"),
        pytest.param([GOOD[:36] + b"0" * 16 + b"-01"], id="zero-parent"),
        pytest.param([GOOD + b"-extra"], id="longer-than-version-00"),
        pytest.param([b"01" + GOOD[2:] + b"extra"], id="later-version-with-a-broken-rest"),
        pytest.param([b"01-" + b"0" * 32 + GOOD[35:]], id="zero-trace-of-a-later-version"),
        pytest.param([b"\xff" + GOOD[1:]], id="no-ascii"),
        pytest.param([GOOD[:-1]], id="short"),
        pytest.param([GOOD + b"\n"], id="line-break"),
        pytest.param([GOOD.replace(b"4", b"g", 1)], id="no-hex"),
    ],
)
def test_without_one_valid_trace_a_new_one_starts_and_the_state_is_dropped(values: list[bytes]) -> None:
    context = next_traceparent(values, [b"a=1"])
    assert context.trace_id != TRACE
    assert len(context.trace_id) == 32
    assert len(context.span_id) == 16
    assert context.tracestate is None


@pytest.mark.parametrize("rest", [b"", b"-", b"-what-comes", b"-\n\xff"])
def test_a_later_version_is_read_by_its_first_four_parts(rest: bytes) -> None:
    context = next_traceparent([b"cc" + GOOD[2:] + rest], [])
    assert context.trace_id == TRACE
    assert context.traceparent.startswith("00-")


def test_unknown_flags_are_not_sent_on() -> None:
    assert next_traceparent([GOOD[:-2] + b"ff"], []).traceparent.endswith("-03")


def test_a_peer_whose_traces_are_not_ours_starts_a_new_one() -> None:
    context = next_traceparent((), [b"a=1"])
    assert context.trace_id != TRACE
    assert context.tracestate is None


@pytest.mark.parametrize(
    ("state", "sent"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"a=1, ,b=2", "a=1,b=2", id="empty-members"),
        pytest.param(b",".join(b"k%d=v" % n for n in range(33)), None, id="too-many-members"),
        pytest.param(b"a=1,x=" + b"y" * 600, "a=1", id="a-long-member-goes-first"),
        pytest.param(b"x=" + b"y" * 600 + b",a=1", "a=1", id="a-long-member-goes-wherever-it-stands"),
        pytest.param(b"a=\x01", None, id="control"),
        pytest.param(b"nonsense", None, id="no-key"),
    ],
)
def test_the_state_stays_within_its_limits(state: bytes, sent: str | None) -> None:
    assert next_traceparent([GOOD], [state]).tracestate == sent


def test_a_state_that_is_too_long_loses_whole_members_from_its_end() -> None:
    members = [f"key{number:02}=" + "v" * 90 for number in range(10)]
    sent = next_traceparent([GOOD], [",".join(members).encode()]).tracestate
    assert sent == ",".join(members[:5])


@pytest.mark.parametrize("digits", [16, 32])
def test_ids_are_lower_case_hex_of_their_length(digits: int) -> None:
    new = ids(digits)
    made = {new() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(rf"[0-9a-f]{{{digits}}}", one) for one in made)


def test_no_id_is_zero_and_a_small_one_is_as_long() -> None:
    new = ids(16, lambda count: (bytes(8) + bytes(7) + b"\xab" + bytes(16) + b"\x01" * 8).ljust(count, b"\0"))
    assert [new(), new(), new()] == ["00000000000000ab", "01" * 8, "00000000000000ab"]
