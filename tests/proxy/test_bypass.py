from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest

from sidecar.proxy.journeys import bypass
from sidecar.proxy.journeys.bypass import (
    MAX_LISTENERS,
    MAX_TOLD,
    BypassWatch,
    ListenerRule,
    ListeningSocket,
    ask_kernel,
    listening_here,
)
from sidecar.proxy.journeys.listening_table import listening_in

COLUMNS = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
HOST = ListenerRule(agent_port=8080)
POD = ListenerRule(agent_port=8080, pod=True, allowed=frozenset({15006}))

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="the tables below are those of a little-endian machine")


def row(local: str, state: str = "0A") -> str:
    return f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100\n"


def table(folder: Path, *rows: str, name: str = "tcp") -> Path:
    path = folder / name
    path.write_text(COLUMNS + "".join(rows))
    return path


def read(path: Path) -> list[ListeningSocket]:
    return [ListeningSocket(*one) for one in listening_in(path, most=MAX_LISTENERS)]


def in_tables(tables: Iterable[Path]) -> Callable[[], list[ListeningSocket]]:
    return lambda: [one for path in tables for one in read(path)]


def at(text: str, port: int = 8080) -> ListeningSocket:
    return ListeningSocket(ip_address(text), port)


@pytest.mark.parametrize(
    ("local", "listening"),
    [
        pytest.param("00000000:1F90", at("0.0.0.0"), id="any"),
        pytest.param("0100007F:1F90", at("127.0.0.1"), id="loopback"),
        pytest.param("0500000A:01BB", at("10.0.0.5", 443), id="one-address"),
        pytest.param("00000000000000000000000000000000:1F90", at("::"), id="any-of-ipv6"),
        pytest.param("00000000000000000000000001000000:1F90", at("::1"), id="loopback-of-ipv6"),
        pytest.param("0000000000000000FFFF00000500000A:1F90", at("::ffff:10.0.0.5"), id="mapped"),
        pytest.param("000080FE00000000FF005450FEEFCDAB:1F90", at("fe80::5054:ff:abcd:effe"), id="link-local"),
    ],
)
def test_a_row_of_the_kernels_table_is_an_address_and_a_port(
    tmp_path: Path, local: str, listening: ListeningSocket
) -> None:
    assert read(table(tmp_path, row(local))) == [listening]


def test_reading_ends_at_the_first_connection_so_that_traffic_costs_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, row("00000000:1F90"), row("0100007F:0001", "01"), "no row of any table\n")
    assert read(path) == [at("0.0.0.0")]


def test_reading_ends_where_there_are_too_many_so_that_nobody_stalls_the_loop_with_listeners(tmp_path: Path) -> None:
    most = [row(f"{port:02X}00007F:1F90") for port in range(256)] * (MAX_LISTENERS // 256)
    assert len(read(table(tmp_path, *most))) == MAX_LISTENERS
    assert len(read(table(tmp_path, *most, row("0100007F:0001", "01")))) == MAX_LISTENERS
    with pytest.raises(ValueError, match=f"lists more than {MAX_LISTENERS} listeners"):
        read(table(tmp_path, *most, row("00000000:1F90"), "no row of any table\n"))


def test_a_listener_cannot_hide_behind_too_many_others(tmp_path: Path) -> None:
    rule = ListenerRule(agent_port=8080, pod=True, refuse=True)
    watch = BypassWatch(lambda: rule, tuple, in_tables([tmp_path / "tcp"]))
    refusals = []
    for others in ([], [row("00000000:1F90")]):
        table(tmp_path, *[row("0100007F:1F90")] * MAX_LISTENERS, *others)
        watch.look()
        refusals.append(watch.refusal)
    before, after = refusals
    assert before is None
    assert after is not None
    assert "more than" in after


def test_a_machine_without_ipv6_has_no_listeners_of_it(tmp_path: Path) -> None:
    assert read(tmp_path / "tcp6") == []
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "tcp")


@pytest.mark.parametrize(
    ("rule", "one", "counts"),
    [
        pytest.param(HOST, at("0.0.0.0"), True, id="the-agents-port-is-open"),
        pytest.param(HOST, at("::"), True, id="also-over-ipv6"),
        pytest.param(HOST, at("10.0.0.5"), True, id="also-at-one-address"),
        pytest.param(HOST, at("127.0.0.1"), False, id="loopback"),
        pytest.param(HOST, at("127.9.9.9"), False, id="loopback-is-a-whole-network"),
        pytest.param(HOST, at("::1"), False, id="loopback-of-ipv6"),
        pytest.param(HOST, at("::ffff:127.0.0.1"), False, id="loopback-mapped"),
        pytest.param(HOST, at("0.0.0.0", 22), False, id="another-program-of-the-machine"),
        pytest.param(POD, at("0.0.0.0", 22), True, id="another-program-of-the-pod"),
        pytest.param(POD, at("0.0.0.0", 15006), False, id="listed"),
        pytest.param(POD, at("0.0.0.0", 7443), False, id="ours"),
        pytest.param(POD, at("10.0.0.5", 7443), True, id="our-port-at-an-address-that-is-not-ours"),
    ],
)
def test_a_listener_beyond_loopback_is_a_way_round_unless_it_is_ours_or_listed(
    rule: ListenerRule, one: ListeningSocket, counts: bool
) -> None:
    found = rule.ways_round([one, at("127.0.0.1", 9)], frozenset({at("0.0.0.0", 7443)}))
    assert found == ([one] if counts else [])


def watch(rule: ListenerRule | None, tables: Iterable[Path]) -> BypassWatch:
    return BypassWatch(lambda: rule, lambda: [("0.0.0.0", 7443), ("localhost", 7090)], in_tables(tables))


def test_each_change_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looking = watch(HOST, [table(tmp_path, row("00000000:1F90"))])
    with caplog.at_level(logging.INFO):
        looking.look()
        looking.look()
        table(tmp_path)
        looking.look()
        looking.look()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "the agent can be reached past the sidecar"),
        ("INFO", "the agent can no longer be reached past the sidecar"),
    ]
    assert vars(caplog.records[0])["listeners"] == "0.0.0.0:8080"


def test_calls_are_refused_only_where_the_platform_says_so(tmp_path: Path) -> None:
    tables = [table(tmp_path, row("00000000:1F90"))]
    strict = ListenerRule(agent_port=8080, refuse=True)
    for rule, refused in ((HOST, False), (strict, True), (None, False)):
        looking = watch(rule, tables)
        looking.look()
        assert (looking.refusal is not None) is refused
    looking = watch(strict, tables)
    looking.look()
    assert looking.refusal == "bypass: the agent can be reached past the sidecar at 0.0.0.0:8080"
    table(tmp_path, row("0100007F:1F90"))
    looking.look()
    assert looking.refusal is None


@pytest.mark.parametrize("content", [None, "one line\nno row of any table\n"], ids=["gone", "another-format"])
def test_a_table_that_cannot_be_read_is_told_and_refused_like_a_way_round(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tcp"
    if content is not None:
        path.write_text(content)
    looking = watch(ListenerRule(agent_port=8080, refuse=True), [path])
    looking.look()
    looking.look()
    assert looking.error is not None
    assert looking.refusal is not None
    assert [record.message for record in caplog.records] == ["the listening sockets cannot be read"]
    lenient = watch(HOST, [path])
    lenient.look()
    assert lenient.refusal is None


def test_of_many_only_the_first_are_named(tmp_path: Path) -> None:
    rows = [row(f"00000000:{port:04X}") for port in range(100, 100 + MAX_TOLD + 3)]
    looking = watch(ListenerRule(agent_port=None, pod=True), [table(tmp_path, *rows)])
    looking.look()
    assert looking.told.endswith("and 3 more")
    assert len(looking.found) == MAX_TOLD + 3


def unanswered(_family: int) -> list[ListeningSocket]:
    raise OSError("this kernel has no sock_diag")


@pytest.mark.parametrize("ask", [ask_kernel, unanswered], ids=["sock_diag", "tables"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "on-loopback"])
def test_the_real_kernel_lists_a_real_listener(
    ask: Callable[[int], list[ListeningSocket]], family: socket.AddressFamily, everywhere: bool
) -> None:
    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as agent:
        try:
            agent.bind(("" if everywhere else loopback, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        agent.listen()
        port = agent.getsockname()[1]
        looking = BypassWatch(lambda: ListenerRule(agent_port=port), lambda: (), lambda: listening_here(ask))
        looking.look()
        assert [one.port for one in looking.found] == ([port] if everywhere else [])
        assert sorted(ask_kernel(family)) == sorted(here_by_table(family))
    looking.look()
    assert looking.found == []


def here_by_table(family: socket.AddressFamily) -> list[ListeningSocket]:
    return read(Path("/proc/self/net/tcp" if family == socket.AF_INET else "/proc/self/net/tcp6"))


def done(error: int = 0, flags: int = 2) -> bytes:
    """Return the end of the kernel's answer."""
    return struct.pack("=IHHIIi", 20, 3, flags, 1, 0, error)


def piece(kind: int, address: bytes = bytes(4), port: int = 8080, family: int = socket.AF_INET) -> bytes:
    """Return one message of the kernel's answer."""
    body = bytes([family, 10, 0, 0]) + port.to_bytes(2, "big") + bytes(2) + address.ljust(16, b"\0") + bytes(44)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def test_an_answer_of_the_kernel_is_read_to_its_end() -> None:
    found: list[ListeningSocket] = []
    assert bypass._take(piece(20) + piece(20, bytes([10, 0, 0, 5]), 443), found)
    assert bypass._take(piece(20, bytes(15) + b"\1", family=socket.AF_INET6), found)
    assert not bypass._take(done() + piece(20), found)
    assert found == [at("0.0.0.0"), at("10.0.0.5", 443), at("::1")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(piece(2), id="error"),
        pytest.param(piece(20)[:-4], id="cut"),
        pytest.param(piece(20)[:20] + bytes(8), id="short"),
        pytest.param(piece(20) + done(-2), id="done-with-an-error"),
        pytest.param(done()[:16], id="done-without-a-number"),
        pytest.param(struct.pack("=IHHII", 16, 3, 2, 1, 0), id="done-that-is-short"),
        pytest.param(piece(20)[:6] + b"\x12\0" + piece(20)[8:], id="interrupted"),
    ],
)
def test_an_answer_that_is_no_whole_one_is_none(answer: bytes) -> None:
    with pytest.raises((OSError, struct.error)):
        bypass._take(answer, [])


def test_a_kernel_without_a_handler_of_tcp_is_no_kernel_without_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends its answer at once, with an error in it. Asked for SCTP, most kernels do so."""
    monkeypatch.setattr(socket, "IPPROTO_TCP", 254)
    with pytest.raises(OSError, match="sock_diag"):
        ask_kernel(socket.AF_INET)


def test_the_kernel_is_asked_for_no_more_listeners_than_a_table_may_have() -> None:
    found = [at("127.0.0.1")] * (MAX_LISTENERS - 1)
    assert bypass._take(piece(20), found)
    with pytest.raises(ValueError, match=f"more than {MAX_LISTENERS} listeners"):
        bypass._take(piece(20), found)


@pytest.mark.parametrize(
    ("own", "refused"),
    [
        pytest.param(("probe.acme.example", 7090), False, id="a-name"),
        pytest.param(("localhost", 7090), True, id="localhost-is-at-no-other-address"),
        pytest.param(("LocalHost", 7090), True, id="in-any-case"),
        pytest.param(("10.0.0.5", 7090), False, id="its-address"),
        pytest.param(("10.0.0.6", 7090), True, id="another-address"),
        pytest.param(("probe.acme.example", 7091), True, id="another-port"),
    ],
)
def test_a_listener_of_ours_that_is_configured_by_name_does_not_stop_us(
    tmp_path: Path, own: tuple[str, int], refused: bool
) -> None:
    rule = ListenerRule(agent_port=8080, pod=True, refuse=True)
    watch = BypassWatch(lambda: rule, lambda: [own], in_tables([table(tmp_path, row("0500000A:1BB2"))]))
    watch.look()
    assert (watch.refusal is not None) == refused


def test_a_second_port_of_the_agent_counts_as_its_first() -> None:
    listening = [at("0.0.0.0", 8080), at("0.0.0.0", 50051), at("0.0.0.0", 9999)]
    assert ListenerRule(agent_port=8080).ways_round(listening, frozenset()) == [listening[0]]
    both = ListenerRule(agent_port=8080, agent_grpc_port=50051)
    assert both.ways_round(listening, frozenset()) == [listening[0], listening[1]]
