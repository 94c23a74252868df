"""The status document of a sidecar, for its operator: JSON, made on request.

It contains no secret: no token, no handle, no key, no query. ``escape`` masks tokens in texts that a caller chose, and
makes control characters visible.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any

from delegation_core.deny_names import domains_of, unmatched
from delegation_core.errors import Problem
from delegation_core.records.record_text import escape
from sidecar import __version__
from sidecar.observe.placement import network_namespace
from sidecar.proxy.listening.recent_counts import refused
from sidecar.proxy.listening.server import Parts, Server
from sidecar.proxy.listening.settings_state import SettingsState as SettingsState
from sidecar.proxy.listening.status_merge import MAX_CHAINS

Json = dict[str, Any]


def status_of(server: Server, settings: SettingsState, *, since: int, now: int) -> Json:
    """Make the document of ``GET /status``. Times are seconds since the epoch."""
    parts = server.parts
    missing = server.missing()
    document = {
        "version": __version__,
        "engine": parts.engine,
        "run": parts.log.run,
        "pid": os.getpid(),
        "tasks": len(asyncio.all_tasks()),
        "since": since,
        "now": now,
        "ready": not missing,
        "missing": missing,
        "stopping": server.draining,
        "network_namespace": network_namespace(),
        "identity": _identity(parts),
        "issuers": _issuers(parts),
        "revocations": parts.revocations.rows(),
        "deny_file": parts.deny_file.row(),
        "deny_unmatched": _deny_unmatched(parts),
        "settings": {**asdict(settings), "problems": list(map(_problem, settings.problems))},
        "requests": {"being_served": len(parts.log.being_served()), "handles": len(parts.handles)},
        "logins": _logins(parts),
        "streams": dict(parts.watch.count()),
        "listeners": [
            {
                "direction": one.direction,
                "address": "{}:{}".format(*one.address),
                "connections": len(one.connections),
                "max_connections": one.max_connections,
                "door": one.door,
            }
            for one in parts.listeners
        ],
        "door": _door(parts),
        "bypass": {
            "listeners": list(map(str, server.bypass.found)),
            "refused": parts.snapshots.closed is not None,
            "error": server.bypass.error,
        },
        "agent": _agent(parts),
        "memory": _memory(parts),
        "upstream_connections": sum(len(pool.connections) + len(pool.raw) for pool in parts.pools),
        "upstreams": _upstreams(parts, now),
        "exchanges": _exchanges(parts),
        "records": _records(server),
        "refused": refused(server.metrics),
        "refused_lately": server.recent_refusals.counts(),
    }
    visible: Json = _visible(document)
    return visible


def chains_of(server: Server) -> Json:
    """Make the document of ``GET /chains``: the requests in progress, the longest first, at most ``MAX_CHAINS``."""
    entries = server.parts.log.being_served()
    rows = [
        {
            "request_id": entry.request_id,
            "direction": entry.direction,
            "since": int(datetime.fromisoformat(entry.ts).timestamp()),
            "verified": entry.verified,
            "peer": entry.peer,
            "subject": entry.subject,
            "actor": entry.actor,
            "chain": entry.chain,
            "route": entry.route,
        }
        for entry in islice(entries, MAX_CHAINS)
    ]
    visible: Json = _visible({"being_served": len(entries), "chains": rows})
    return visible


def _problem(problem: Problem) -> Json:
    return {**asdict(problem), "cure": problem.fix}  # the key's old name, for one release


def _deny_unmatched(parts: Parts) -> list[Json]:
    """Return the rows of the deny list in force that can never match."""
    snapshot = parts.snapshots.current
    if snapshot is None:
        return []
    policy, identity = snapshot.policy, parts.source.current
    domains = domains_of(policy.issuers.values(), parts.snapshots.setup.peer_trust_domains)
    domains |= {str(policy.workload.trust_domain), *(map(str, identity.bundles) if identity is not None else ())}
    issuers = {*policy.issuers, *policy.platform_issuers, *(policy.entry.issuers if policy.entry is not None else ())}
    return [one._asdict() for one in unmatched(policy.deny, domains=domains, issuers=issuers)]


def _identity(parts: Parts) -> Json:
    source, identity = parts.source, parts.source.current
    named = parts.snapshots.setup.peer_trust_domains
    return {
        "state": source.state,
        "spiffe_id": None if identity is None else identity.spiffe_id,
        "not_before": None if identity is None else identity.svid.not_before,
        "not_after": None if identity is None else identity.svid.not_after,
        "generation": None if identity is None else identity.number,
        "trust_domains": [] if identity is None else sorted(identity.bundles),
        "missing_trust_domains": [] if identity is None else sorted(named - identity.bundles.keys()),
        "last_error": source.last_error,
        "updates": asdict(source.counts),
    }


def _issuers(parts: Parts) -> list[Json]:
    setup = parts.snapshots.setup
    ages, errors = setup.keys.ages(), setup.keys.last_errors()
    return [
        {
            "issuer": issuer,
            "needed": issuer in setup.needed_issuers,
            "key_age_s": None if age is None else int(age),
            "last_error": errors[issuer],
        }
        for issuer, age in ages.items()
    ]


def _logins(parts: Parts) -> Json | None:
    """Return the counts of pending logins; None if no route needs a login and none is pending."""
    snapshot, features = parts.snapshots.current, parts.features
    routes = () if snapshot is None else snapshot.policy.outbound.routes
    with_logins = any(route.token == "login" for route in routes)  # noqa: S105 - a kind
    logins = None if features is None else features.of("user_logins") if with_logins else features.used("user_logins")
    if logins is None or not (with_logins or logins.pending.alive):
        return None
    pending = logins.pending
    return {
        "pending": pending.alive,
        "max_pending": pending.most,
        "pending_bytes": pending.bytes,
        "max_bytes": pending.max_bytes,
    }


def _door(parts: Parts) -> Json | None:
    """Return the state of the door; None: there is no door. ``error``: why the certificate file is not in use."""
    snapshot, certificate = parts.snapshots.current, parts.door
    entry = None if snapshot is None else snapshot.policy.entry
    if certificate is None or entry is None or entry.door is None:
        return None
    return {
        "resource": entry.door.resource.url,
        "routes": sorted(entry.door.routes),
        "certificate_not_after": certificate.not_after,
        "error": certificate.error,
    }


def _memory(parts: Parts) -> Json | None:
    """Return memory use and limit; None: there is no limit."""
    memory = parts.memory
    if memory is None:
        return None
    return {"used_bytes": memory.used_bytes, "limit_bytes": memory.limit_bytes, "short": memory.short}


def _exchanges(parts: Parts) -> list[Json]:
    """Return a row for each token service, with its last refused exchange and its endpoints."""
    return [
        {
            "issuer": issuer,
            "tokens": len(one.tokens),
            "under_way": one.under_way,
            "last_refusal": None
            if one.last_refusal is None
            else dict(zip(("at", "reason", "detail"), one.last_refusal, strict=True)),
            "endpoints": [
                {
                    "url": state.url,
                    "open": state.open,
                    "failing_s": state.failing_s,
                    "reason": None if state.failure is None else state.failure.reason,
                    "detail": None if state.failure is None else state.failure.detail,
                }
                for state in one.endpoints
            ],
        }
        for issuer, one in parts.snapshots.setup.exchanges.items()
    ]


def _agent(parts: Parts) -> Json | None:
    """Return the agent's address and state; None: there is no inbound side."""
    agent = parts.snapshots.setup.agent
    if agent is None or parts.agent is None:
        return None
    return {"address": f"{agent.host}:{agent.port}", "up": parts.agent.up}


def _upstreams(parts: Parts, now: int) -> list[Json]:
    """Return a row for each upstream whose last connection attempt failed, newest first."""
    return [
        {
            "direction": listener.direction,
            "address": address,
            "at": int(now - (pool.connections.clock() - failing.at)),
            "reason": failing.reason,
            "detail": failing.detail,
        }
        for listener, pool in zip(parts.listeners, parts.pools, strict=False)
        for address, failing in reversed(pool.failing.items())
    ]


def _records(server: Server) -> Json:
    log = server.parts.log
    filling = log.filling
    return {
        "sink": log.sink,
        "trouble": log.trouble,
        "waiting": log.waiting,
        "waiting_bytes": log.waiting_bytes,
        "refused_at_bytes": log.max_bytes,
        "free_bytes": None if filling is None else filling.room.free_bytes,
        "size_bytes": None if filling is None else filling.room.size_bytes,
        "full_in_s": None if filling is None else filling.full_in_s,
        "lost": server.metrics.events_dropped,
        "suppressed": server.metrics.records_suppressed,
    }


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return escape(str(value))
    if isinstance(value, Mapping):
        return {_visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(item) for item in value]
    return value
