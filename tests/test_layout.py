"""The tests mirror the product: a module's test has its name, or is in this table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.sources import PACKAGES

ROOT: Final = Path(__file__).parent.parent
MARK: Final = "pytest.mark.integration"

# Modules whose behaviour shows only together with others, and their tests.
ELSEWHERE: Final = {
    "features/a2a/errors.py": "proxy/test_refusal.py",
    "wire/lifetimes.py": "proxy/test_lifetimes.py",
    "wire/caller_connection.py": "proxy/test_connection_table.py",
    "wire/h1_body.py": "wire/test_h1_stream.py",
    "wire/upstream_errors.py": "wire/test_upstream.py",
    "wire/h2_exchange.py": "wire/test_h2_client.py",
    "wire/h2_stream.py": "wire/test_h2_requests.py",
    **{
        f"agent/{library}.py": "agent/test_clients.py"
        for library in ("aiohttp", "httpx", "httpx2", "requests", "transports", "urllib")
    },
    "agent/grpc_aio.py": "agent/test_grpc.py",
    "__main__.py": "integration/test_completion.py",
    "app.py": "integration/test_process.py",
    "one_process.py": "integration/test_admin.py",
    "sts_app.py": "integration/test_parts.py",
    "settings_watch.py": "integration/test_reload.py",
    "start.py": "integration/test_address_space.py",
    "libc_memory.py": "proxy/test_system_memory.py",
    "assembly/run.py": "integration/test_process.py",
    "config/record_settings.py": "config/test_sts_settings.py",
    "core/console/run.py": "test_cli.py",
    "core/console/examples.py": "test_examples.py",
    "core/steps.py": "test_steps.py",
    "audit/__main__.py": "interop/test_dist.py",
    "core/door_url.py": "core/test_door.py",
    "core/route_checks.py": "core/test_route.py",
    "core/message_json.py": "core/test_strict_json.py",
    "identity/jwt_bundle_file.py": "identity/test_file_update.py",
    "core/token_endpoint.py": "core/test_token_request.py",
    "identity/peer_address.py": "identity/test_handshake.py",
    "sts/features.py": "integration/test_walls.py",
    "assembly/server.py": "integration/test_inbound.py",
    "assembly/setup.py": "integration/test_reload.py",
    "assembly/sides.py": "integration/test_inbound.py",
    "audit/chains/calls.py": "audit/chains/test_joins.py",
    "audit/chains/choice.py": "audit/chains/test_database.py",
    "audit/chains/dialect.py": "interop/test_clickhouse.py",
    "audit/chains/engine.py": "audit/chains/test_labelled.py",
    "audit/chains/examination.py": "audit/chains/test_database.py",
    "audit/chains/findings.py": "audit/chains/test_command.py",
    "audit/selectors/entries.py": "audit/selectors/test_kinds.py",
    "audit/selectors/members.py": "audit/selectors/test_shapes.py",
    "audit/selectors/template_checks.py": "audit/selectors/test_rulebook.py",
    "doctor/attempts.py": "doctor/test_probes.py",
    "doctor/case.py": "doctor/test_command.py",
    "doctor/cells.py": "doctor/test_verdicts_actor.py",
    "doctor/names.py": "doctor/test_probes.py",
    "doctor/probes_actor.py": "doctor/test_probes.py",
    "doctor/probes_chain.py": "doctor/test_probes.py",
    "doctor/probes_limits.py": "doctor/test_probes.py",
    "doctor/probes_protocol.py": "doctor/test_probes.py",
    "doctor/verdicts.py": "doctor/test_conclusion.py",
    "reasons/guidance.py": "reasons/test_advice.py",
    "explain/judgement.py": "explain/test_explanation.py",
    "reasons/inbound.py": "reasons/test_advice.py",
    "reasons/outbound.py": "reasons/test_advice.py",
    "explain/recorded_token.py": "explain/test_explanation.py",
    "explain/recorded_exchange.py": "explain/test_judge_exchange.py",
    "explain/rule_names.py": "explain/test_judge_exchange.py",
    "config/kubernetes.py": "test_check_kubernetes.py",
    "config/exchange_model.py": "config/test_exchange_checks.py",
    "config/profile_docs.py": "config/test_docs.py",
    "config/limits.py": "config/test_validation.py",
    "config/sections.py": "config/test_sidecar_file.py",
    "config/settings.py": "integration/test_reload.py",
    "observe/pages.py": "integration/observe/test_probe.py",
    "core/records/record_schema.py": "core/records/test_record.py",
    "observe/scrape.py": "observe/test_metrics.py",
    "serving/app_site.py": "integration/sts/test_logout_endpoint.py",
    "serving/page_site.py": "integration/serving/test_probe.py",
    "features/a2a/settings.py": "features/operations/test_settings.py",
    "features/grpc/settings.py": "features/operations/test_settings.py",
    "features/mcp/settings.py": "features/operations/test_settings.py",
    "core/callable.py": "integration/test_filtered_lists.py",
    "features/mcp/list_forwarding.py": "integration/test_filtered_lists.py",
    "features/mcp/forwarding.py": "integration/test_mcp_sessions.py",
    "features/mcp/sessions.py": "integration/test_mcp_sessions.py",
    "features/door/resource_metadata.py": "integration/test_resource_metadata.py",
    "features/operations/operation.py": "integration/test_operations.py",
    "assembly/stranger_sides.py": "integration/test_door.py",
    "core/a2a_rules.py": "core/test_a2a.py",
    "core/reevaluate_exceptions.py": "core/test_reevaluate.py",
    "core/revocations_kept.py": "core/test_revocation.py",
    "exchange/no_revocations.py": "integration/test_walls.py",
    "exchange/static_credential.py": "exchange/test_client_auth.py",
    "features/outside/fields.py": "proxy/test_headers.py",
    "proxy/journeys/listening_table.py": "proxy/test_bypass.py",
    "proxy/journeys/revalidation_exceptions.py": "proxy/test_observing_calls.py",
    "proxy/journeys/stray_credentials.py": "proxy/test_credentials.py",
    "proxy/listening/settings_state.py": "proxy/test_status.py",
    "features/operations/sides.py": "integration/test_operations.py",
    "features/operations/content.py": "integration/test_filtered_lists.py",
    "features/mcp/operation.py": "integration/test_operations.py",
    "features/mcp/feature.py": "integration/test_mcp_sessions.py",
    "features/a2a/operation.py": "proxy/test_refusal.py",
    "features/a2a/feature.py": "integration/features/a2a/test_answers.py",
    "features/grpc/feature.py": "integration/test_grpc.py",
    "proxy/journeys/feature.py": "features/test_features.py",
    "proxy/journeys/operation.py": "features/test_features.py",
    "proxy/journeys/whole_body.py": "proxy/test_journey.py",
    "config/outbound_model.py": "config/test_sidecar_file.py",
    "config/endpoints.py": "config/test_issuers.py",
    "config/inbound_checks.py": "config/test_sidecar_checks.py",
    "config/inbound_model.py": "config/test_sidecar_file.py",
    "config/outbound_checks.py": "config/test_sidecar_checks.py",
    "config/sidecar_model.py": "config/test_sidecar_file.py",
    "config/sts_model.py": "config/test_sts_file.py",
    "config/tracing_model.py": "config/test_tracing_checks.py",
    "observe/telemetry/settings.py": "config/test_tracing_checks.py",
    "dev/acts.py": "integration/test_demo.py",
    "dev/attack.py": "interop/test_compose.py",
    "dev/attacks.py": "integration/test_demo.py",
    "dev/agents.py": "interop/test_compose.py",
    "dev/careless_sts.py": "integration/test_demo.py",
    "dev/demo.py": "integration/test_demo.py",
    "dev/demo_agents.py": "integration/test_demo.py",
    "dev/json_rpc.py": "dev/test_mcp_stand_in.py",
    "dev/login_tls.py": "dev/test_user_issuer.py",
    "dev/mesh.py": "integration/test_demo.py",
    "dev/mesh_settings.py": "integration/test_demo.py",
    "dev/run.py": "dev/test_run_plan.py",
    "dev/screen.py": "integration/test_demo.py",
    "dev/stage.py": "integration/test_demo.py",
    "exchange/adapters/adapter.py": "exchange/adapters/test_adapters.py",
    "exchange/adapters/agent_grant.py": "exchange/adapters/test_logins.py",
    "exchange/adapters/login.py": "exchange/adapters/test_logins.py",
    "exchange/adapters/obo.py": "exchange/adapters/test_logins.py",
    "exchange/adapters/step.py": "exchange/adapters/test_rfc8693.py",
    "exchange/sts_settings.py": "features/logins/test_settings.py",
    "exchange/federation/anthropic.py": "exchange/federation/test_adapters.py",
    "exchange/federation/azure.py": "exchange/federation/test_adapters.py",
    "exchange/federation/google.py": "exchange/federation/test_adapters.py",
    "exchange/federation/openai.py": "exchange/federation/test_adapters.py",
    "exchange/federation/trade.py": "exchange/federation/test_adapters.py",
    "identity/file_trust.py": "identity/test_pinned_origin.py",
    "identity/memory_file.py": "identity/test_ssl_object.py",
    "identity/secrets_log.py": "identity/test_ssl_object.py",
    "observe/sink.py": "observe/test_writer.py",
    "process.py": "integration/test_process.py",
    "signals.py": "integration/test_cli.py",
    "proxy/journeys/call_authority.py": "proxy/test_outbound.py",
    "features/door/door.py": "integration/test_door.py",
    "features/door/forwarding.py": "integration/test_door.py",
    "config/doc_examples.py": "config/test_docs.py",
    "config/doc_places.py": "config/test_docs.py",
    "dev/story.py": "integration/test_demo.py",
    "explain/recorded_requests.py": "explain/test_command.py",
    "audit/chains/chain_list.py": "integration/audit/chains/test_command.py",
    "features/a2a/forwarding.py": "integration/proxy/test_task_lists.py",
    "features/a2a/held_forwarding.py": "integration/features/a2a/test_answers.py",
    "core/login_issuer.py": "core/test_door.py",
    "reload.py": "integration/test_reload.py",
    "sts/rules.py": "sts/test_policy.py",
    "proxy/native/ghosts.py": "proxy/test_warm.py",
    "proxy/native/warm_inbound.py": "proxy/test_warm.py",
    "wire/kernel.py": "wire/test_teardown.py",
    "wire/origin_pool.py": "wire/test_pool.py",
    "wire/stream.py": "wire/test_h1_stream.py",
    "workers/parent.py": "integration/test_workers.py",
    "workers/run.py": "integration/test_workers.py",
    "workers/worker_group.py": "integration/test_workers.py",
    "workers/worker.py": "integration/test_workers.py",
}


def modules() -> list[str]:
    """Return modules of the sidecar, and those of the other distributions as ``core/…``, ``audit/…`` and so on."""
    rooms = {folder: Path() if name == "sidecar" else Path(name) for name, folder in PACKAGES.items()}
    found = (room / path.relative_to(folder) for folder, room in rooms.items() for path in folder.rglob("*.py"))
    return sorted(str(path) for path in found if path.name != "__init__.py")


def mirror_of(module: Path) -> Path:
    """Return the test that has a module's name. Those of the packages of ``proxy/`` are in one folder."""
    folder = Path("proxy") if module.parts[0] == "proxy" else module.parent
    return folder / f"test_{module.name}"


def exists(test: Path) -> bool:
    """Tell if there is a test file in its room's folder, or in that room's folder below ``integration``."""
    integration = ROOT / "tests" / "integration" / test
    return (ROOT / "tests" / test).is_file() or (test.parent != Path() and integration.is_file())


def test_every_module_has_its_test() -> None:
    for module in modules():
        mirrored = mirror_of(Path(module))
        assert any(map(exists, (mirrored, Path(ELSEWHERE.get(module, "nowhere"))))), f"where is {module} tested?"


def test_the_table_names_no_module_that_is_gone_or_has_a_test_of_its_own() -> None:
    for module in ELSEWHERE:
        assert module in modules()
        assert not exists(mirror_of(Path(module))), module


def test_only_the_folder_of_integration_has_tests_that_need_more_than_memory() -> None:
    marked = {str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("*.py") if MARK in file.read_text()}
    assert {one for one in marked if not one.startswith(("tests/integration/", "tests/test_layout.py"))} == set()
