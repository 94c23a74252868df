"""Two habits of tests that cost more than they show, and the files that still have them: both lists only shrink.

A test that reads private attributes breaks when the code behind a contract changes. A test that sleeps for a fixed time
is slow on an idle machine and fails on a busy one: let it wait for a condition.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
# These wait for processes of others, or load a mesh at a pace.
ELSEWHERE: Final = ("interop/", "soak/")

PRIVATE: Final = {
    "audit/attribution/test_elements.py",
    "audit/attribution/test_roster.py",
    "audit/chains/test_lines.py",
    "core/test_bounded.py",
    "core/test_inbound_routes.py",
    "exchange/test_credential_watch.py",
    "exchange/test_txn_service.py",
    "features/logins/test_logins.py",
    "features/observing/test_shown_credentials.py",
    "features/outside/test_tunnel_forwarding.py",
    "features/transaction_tokens/test_txn_tokens.py",
    "fuzz/h2_library.py",
    "fuzz/of_bodies.py",
    "fuzz/of_http2.py",
    "fuzz/of_orders.py",
    "fuzz/of_others.py",
    "fuzz/of_upstreams.py",
    "fuzz/test_notices.py",
    "identity/test_base_source.py",
    "identity/test_jwt_svids.py",
    "identity/test_record_gate.py",
    "identity/test_ssl_object.py",
    "identity/test_svid.py",
    "injector/test_hostile.py",
    "injector/test_webhook.py",
    "integration/agent/test_clients.py",
    "integration/audit/chains/test_database.py",
    "integration/audit/chains/test_inputs.py",
    "integration/audit/test_suggested.py",
    "integration/existing_system.py",
    "integration/h2_caller.py",
    "integration/identity/test_handshake_endings.py",
    "integration/identity/test_handshake_queue.py",
    "integration/identity/test_source_factory.py",
    "integration/identity/test_workload_client.py",
    "integration/mesh.py",
    "integration/proxy/test_listener.py",
    "integration/serving/test_probe.py",
    "integration/sts/test_replicas.py",
    "integration/test_connect.py",
    "integration/test_door.py",
    "integration/test_evidence.py",
    "integration/test_lifecycle.py",
    "integration/test_observe.py",
    "integration/test_one_subject.py",
    "integration/test_parts.py",
    "integration/test_plain.py",
    "integration/test_pooling.py",
    "integration/test_records_before_answer.py",
    "integration/test_runbook.py",
    "integration/wire/test_dial.py",
    "observe/telemetry/test_entries.py",
    "observe/telemetry/test_otlp.py",
    "observe/test_access_log.py",
    "observe/test_population.py",
    "observe/test_secret_names.py",
    "observe/test_writer.py",
    "proxy/engines.py",
    "proxy/test_bypass.py",
    "proxy/test_connection_table.py",
    "proxy/test_deadlines.py",
    "proxy/test_deny_file.py",
    "proxy/test_handles.py",
    "proxy/test_linger_cache.py",
    "proxy/test_remote_handles.py",
    "proxy/test_server.py",
    "proxy/test_verdicts.py",
    "proxy/test_warm.py",
    "proxy/test_warm_handle_field.py",
    "proxy/test_warm_messages_in.py",
    "proxy/test_warm_outbound.py",
    "proxy/test_warm_pieces.py",
    "proxy/test_warm_resumed.py",
    "proxy/test_watch.py",
    "proxy/traced.py",
    "proxy/warm.py",
    "status/test_web.py",
    "sts/test_known_names.py",
    "sts/test_schedule.py",
    "test_background.py",
    "test_completion.py",
    "test_containment.py",
    "test_engine.py",
    "test_examples.py",
    "wire/test_h1_client.py",
    "wire/test_h1_fields.py",
    "wire/test_h1_shape.py",
    "wire/test_h2_abuse.py",
    "wire/test_h2_compression.py",
    "wire/test_h2_connection.py",
    "wire/test_h2_direct.py",
    "wire/test_h2_server.py",
    "wire/test_pool.py",
    "wire/test_scheduling.py",
    "wire/test_tunnel.py",
    "wire/test_websocket_frames.py",
}
SLEEPING: Final = {
    "exchange/test_failover.py",
    "exchange/test_one_hanging_user.py",
    "fakes/lies.py",
    "features/observing/test_plain.py",
    "features/outside/test_static_keys.py",
    "integration/config/test_loader.py",
    "integration/doctor/test_transport.py",
    "integration/fuzz/test_interrupted.py",
    "integration/identity/test_handshake_queue.py",
    "integration/injector/test_crowd.py",
    "integration/proxy/test_agent_watch.py",
    "integration/proxy/test_listener.py",
    "integration/sts/test_key_rotation.py",
    "integration/test_agent_grant.py",
    "integration/test_connect.py",
    "integration/test_grpc.py",
    "integration/test_grpc_endings.py",
    "integration/test_http2_upstreams.py",
    "integration/test_long_transfers.py",
    "integration/test_mcp_streams.py",
    "integration/test_one_record.py",
    "integration/test_process.py",
    "integration/test_runbook.py",
    "integration/test_unread_answers.py",
    "sts/test_revocations.py",
    "wire/test_grpc.py",
    "wire/test_h2_client.py",
    "wire/test_h2_client_floods.py",
}


# Most files have neither: to parse them all takes seconds.
MAY_BE_PRIVATE: Final = re.compile(r"(?<!self|.cls)\._[a-z]", re.IGNORECASE)


def finds_private(source: str) -> bool:
    """True if the file reads ``owner._name`` of an object that is not its own, nor of Python's library."""
    if MAY_BE_PRIVATE.search(source) is None:
        return False
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            named_tuple = node.attr in {"_asdict", "_fields", "_make", "_replace"}
            if not named_tuple and owner not in {"self", "cls", "super()", "argparse", "asyncio", "os", "ssl", "sys"}:
                return True
    return False


def finds_sleep(source: str) -> bool:
    """True if the file sleeps outside a ``while`` loop: one that polls for a condition ends as soon as it holds."""
    return "sleep(" in source and any(_fixed_sleeps(ast.parse(source), polling=False))


def _fixed_sleeps(node: ast.AST, *, polling: bool) -> Iterator[bool]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"asyncio.sleep", "time.sleep"}:
        yield not polling and ast.unparse(node.args[0]) != "0"
    polling = isinstance(node, ast.While) or (
        polling and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.For | ast.AsyncFor)
    )
    for child in ast.iter_child_nodes(node):
        yield from _fixed_sleeps(child, polling=polling)


@pytest.mark.parametrize(
    ("finds", "source", "found"),
    [
        (finds_private, "assert pool._free == 0", True),
        (finds_private, "assert made.pool._free == 0", True),
        (finds_private, "pool._free = 0", True),
        (finds_private, "self._free = record._replace(at=0)", False),
        (finds_private, "sys._getframe()", False),
        (finds_sleep, "time.sleep(0.1)", True),
        (finds_sleep, "async def wait():\n  for _ in range(9):\n    await asyncio.sleep(PAUSE_S)", True),
        (finds_sleep, "while waits():\n  for _ in range(9):\n    time.sleep(1)", True),
        (finds_sleep, "while not done():\n  if waits():\n    time.sleep(1)", False),
        (finds_sleep, "await asyncio.sleep(0)", False),
    ],
)
def test_both_habits_are_found(finds: Callable[[str], bool], source: str, found: bool) -> None:
    assert finds(source) is found


@pytest.mark.parametrize(("finds", "listed"), [(finds_private, PRIVATE), (finds_sleep, SLEEPING)])
def test_no_other_file_has_them(finds: Callable[[str], bool], listed: set[str]) -> None:
    """A file that is new here gets a test without the habit; one that lost it loses its line."""
    names = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("*.py")}
    found = {name for name, path in names.items() if not name.startswith(ELSEWHERE) and finds(path.read_text())}
    assert (found - listed, listed - found) == (set(), set())
