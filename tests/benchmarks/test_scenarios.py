from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.axes import ALL
from benchmarks.growth import AXES, GROWTH
from benchmarks.peers.all import all_peers
from benchmarks.peers.peer import (
    AGENTS,
    CHAINS,
    GRPC,
    HTTP2,
    INBOUND,
    NARROW,
    NARROW_HANDSHAKES,
    OUTBOUND,
    OVER_HTTP2,
    ROUTES,
)
from benchmarks.peers.sidecar_settings import GRPC_METHOD, http2_settings
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.smoke import SMOKE
from benchmarks.tables import BASE
from benchmarks.world import Pem

PEERS = {peer.name: peer for peer in all_peers()}
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def test_names_are_given_once() -> None:
    scenarios = [scenario.name for scenario in (*ALL, *GROWTH)]
    assert len(set(scenarios)) == len(scenarios)
    assert len(PEERS) == len(all_peers())


def test_the_base_is_the_first_and_the_sidecar_can_do_everything() -> None:
    first, *_ = PEERS
    assert first == BASE
    assert PEERS["sidecar"].roles.keys() == {
        *(INBOUND, NARROW, OUTBOUND, AGENTS),
        *(*ROUTES, *OVER_HTTP2, *CHAINS),
    }
    assert all(scenario.suits(PEERS["sidecar"]) for scenario in (*ALL, *GROWTH))


def test_every_peer_but_the_sidecar_and_its_version_before_says_what_it_does_not_do() -> None:
    assert [name for name, peer in PEERS.items() if not peer.does_not] == ["sidecar", "sidecar-before"]


@pytest.mark.parametrize(("name", "status"), [("forged", 401), ("impersonation", 403)])
def test_who_judges_refuses_and_the_base_is_beside_it(name: str, status: int) -> None:
    scenario = BY_NAME[name]
    assert scenario.expects(PEERS["sidecar"]) == status
    assert scenario.suits(PEERS["envoy-jwt"])
    assert not scenario.suits(PEERS["nginx"])
    assert scenario.suits(PEERS[BASE])
    assert scenario.expects(PEERS[BASE]) == 200


def test_who_knows_no_http_is_not_asked_to_stream_events() -> None:
    assert not BY_NAME["events"].suits(PEERS["hitch"])
    assert BY_NAME["events"].suits(PEERS["nginx"])


def test_a_request_has_one_place_for_its_token_and_a_length_if_it_has_a_body() -> None:
    head = Scenario(name="x", title="x", method="POST", body=5).head("a.example", "/next")
    assert head.startswith("POST /next/search HTTP/1.1\r\nHost: a.example\r\n")
    assert head.count("@TOKEN@") == 1
    assert "\r\nContent-Length: 5\r\n\r\n" in head
    assert "Content-Length" not in Scenario(name="x", title="x").head("a.example")


def test_the_flood_is_larger_than_the_handshakes_that_may_run_at_once() -> None:
    assert BY_NAME["silent-narrow"].crowd > NARROW_HANDSHAKES
    assert {one.role for one in SCENARIOS if one.name.startswith("silent-narrow")} == {NARROW}


def test_the_native_engine_takes_part_or_says_why_not() -> None:
    native = PEERS["sidecar-native"]
    why = native.missing()
    assert why is None or "make native" in why
    assert {INBOUND, NARROW, OUTBOUND} <= native.roles.keys()


def test_http2_is_asked_of_who_speaks_it() -> None:
    scenario = BY_NAME["http2"]
    asked = {name for name, peer in PEERS.items() if scenario.suits(peer)}
    assert {"haproxy", "haproxy-jwt", "nginx", "nginx-njs", "envoy", "envoy-jwt", "caddy", "sidecar"} <= asked
    assert not {"sidecar-native", "hitch", "aiohttp", "direct"} & asked
    assert "HTTP/2" in PEERS["sidecar-native"].does_not
    assert BY_NAME["http2-500"].suits(PEERS["direct"])


def test_scenarios_of_http2_are_those_with_streams() -> None:
    assert {one.name for one in SCENARIOS if one.streams} == {one.name for one in SCENARIOS if one.role in OVER_HTTP2}
    assert all(one.streams <= 100 for one in SCENARIOS)  # each peer admits as many on a connection
    assert not any(one.streams for one in SCENARIOS if one.name in SMOKE)


def test_a_call_of_grpc_is_an_empty_message_that_the_sidecar_allows() -> None:
    scenario = BY_NAME["grpc-unary"]
    head = scenario.head("a.example")
    assert head.startswith(f"POST /{GRPC_METHOD} HTTP/1.1\r\n")
    assert "\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\r\n" in head
    assert "Content-Length" not in head
    assert scenario.body == 5
    world: Any = SimpleNamespace(
        at=str, identities=defaultdict(lambda: Pem(*[Path("x")] * 3)), bundle="x", issuer="x", jwks_url="x"
    )
    (route,) = http2_settings(world, "sidecar-grpc", GRPC)["inbound"]["routes"]
    assert route["operations"] == [{"allow": [GRPC_METHOD]}]
    assert "protocol" not in http2_settings(world, "sidecar-http2", HTTP2)["inbound"]["routes"][0]


def test_growth_goes_along_known_axes_from_few_to_many() -> None:
    for axis in AXES:
        amounts = [scenario.amount for scenario in GROWTH if scenario.axis == axis]
        assert amounts == sorted(amounts)
        assert len(amounts) > 1
