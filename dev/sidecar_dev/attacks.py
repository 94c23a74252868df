"""Attacks of the demo, with the writer's files and headers, stolen tokens, a valid SVID of the mesh, curl and openssl.

Each attack comes with its lawful twin: the same command with one fact changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar_dev.acts import QUESTION
from sidecar_dev.curl import Answer
from sidecar_dev.mesh_settings import ARCHIVE, CRM, PLANNER, WRITER
from sidecar_dev.stage import Check, Scene, Stage, check, fact

ATTACKS: Final = "act 2: the attacker"
_SLOW: Final = {**QUESTION, "think_s": 2.0}  # gives time to use the handle of a request in flight


@dataclass(frozen=True, slots=True)
class Loot:
    """Stolen tokens, and the names of files that hold them as header lines."""

    login: str
    crm_token: str
    crm_header: str
    alices_header: str


def attacks(stage: Stage) -> Iterator[Scene]:
    """Yield every attack and its twin."""
    loot = _loot(stage)
    yield _what_the_writer_holds(stage)
    yield _impersonation(stage, loot)
    yield _theft(stage, loot)
    yield _login_token(stage, loot)
    yield _greed(stage, loot)
    yield _forgery(stage, loot)
    yield _careless_service(stage)


def _loot(stage: Stage) -> Loot:
    token = stage.seen("crm")["delegation-token"]
    login = (stage.places.directory / "login.header").read_text().removeprefix("Authorization: Bearer ").strip()
    return Loot(
        login=login,
        crm_token=token,
        crm_header=stage.header_file("stolen", token),
        alices_header=stage.header_file("alices", stage.log_in(CRM)),
    )


def _what_the_writer_holds(stage: Stage) -> Scene:
    """Steal the writer's environment and headers while it serves alice, and try them everywhere."""
    before = stage.seen("writer")
    asking = stage.asking("front", _SLOW)
    headers = stage.next_seen("writer", before)
    environment = _environment_of(stage.mesh.pid("writer"))
    handle = headers.get("authorization", "").removeprefix("Bearer ")
    header = stage.header_file("handle", handle)
    read, export = stage.tool_call("read_customer", customer="42"), stage.tool_call("export_customers")
    lawful = stage.local_call("writer", "/crm/mcp", header, *read)
    elsewhere = stage.local_call("planner", "/crm-export/mcp", header, *export)
    another = stage.local_call("writer", "/crm/mcp", header, *export)
    beyond = stage.local_call("writer", "/crm-export/mcp", header, *export)
    asking.wait()
    afterwards = stage.local_call("writer", "/crm/mcp", header, *read)
    return Scene(
        ATTACKS,
        "everything the writer holds",
        "Its environment and its headers: addresses, names, and one handle that stands for the request being served.",
        (
            fact(
                "no secret, no token",
                "one handle",
                held=not any("eyJ" in text for text in (*environment, *headers.values())),
            ),
            check("the handle, while its request is served", lawful, 200),
            check("the handle at another sidecar", elsewhere, 403, "no_request_context"),
            check("the handle for the server's other tool", another, 403, "operation_refused"),
            check("the handle for a call not on its list", beyond, 403, "call_not_allowed"),
            check("the handle after its request", afterwards, 403, "no_request_context"),
        ),
        lines=[*environment, *(f"{name}: {value}" for name, value in headers.items())],
        records=(stage.record("planner", lambda r: r["reason"] == "no_request_context"),),
    )


def _impersonation(stage: Stage, loot: Loot) -> Scene:
    return Scene(
        ATTACKS,
        "impersonation: a token without an actor",
        "alice's own token for the CRM, from her login issuer, presented by the writer. It is genuine, unexpired and "
        "for the CRM, but it names nobody who acts. The twin is the token that the exchange gave for this hop.",
        (
            check(
                "alice's own token, which names no actor",
                stage.call_crm("writer", loot.alices_header),
                401,
                "act_missing",
            ),
            check("the same call, delegated", stage.call_crm("writer", loot.crm_header), 200),
        ),
        records=(stage.record("crm", lambda r: r["reason"] == "act_missing"),),
    )


def _theft(stage: Stage, loot: Loot) -> Scene:
    return Scene(
        ATTACKS,
        "theft: a real token in other hands",
        "The writer's token for the CRM. Another workload of the same trust domain presents it with a valid SVID of "
        "its own, at the CRM and at the token service. The twins: the writer, and the CRM, who may exchange it.",
        (
            check(
                "a stolen token, by another workload",
                stage.call_crm("intruder", loot.crm_header),
                403,
                "actor_mismatch",
            ),
            check("the same token, its own actor", stage.call_crm("writer", loot.crm_header), 200),
            check(
                "a stolen token, exchanged",
                stage.exchange("intruder", loot.crm_token, ARCHIVE, "crm.read"),
                400,
                "not_your_token",
            ),
            check("exchanged by its audience", stage.exchange("crm", loot.crm_token, ARCHIVE, "crm.read"), 200),
        ),
        records=(
            stage.record("crm", lambda r: r["reason"] == "actor_mismatch"),
            stage.record("sts", lambda r: r["reason"] == "not_your_token"),
        ),
    )


def _login_token(stage: Stage, loot: Loot) -> Scene:
    return Scene(
        ATTACKS,
        "alice's login token, where nobody logs in",
        "A chain starts only at a workload that is configured as an entry. The twin is that workload.",
        (
            check(
                "alice's login token, sent by the writer",
                stage.exchange("writer", loot.login, CRM, "crm.read"),
                400,
                "not_an_entry",
            ),
            check("the front app, the entry", stage.exchange("front", loot.login, PLANNER, "crm.read"), 200),
        ),
        records=(stage.record("sts", lambda r: r["reason"] == "not_an_entry"),),
    )


def _greed(stage: Stage, loot: Loot) -> Scene:
    return Scene(
        ATTACKS,
        "greed: asking for more than was given",
        "The token allows crm.read. It is used for the export, and the token service is asked for crm.export.",
        (
            check(
                "the export, with a token for reading",
                stage.call_crm("writer", loot.crm_header, stage.tool_call("export_customers")),
                403,
                "insufficient_scope",
            ),
            check("what crm.read is for", stage.call_crm("writer", loot.crm_header), 200),
            check(
                "an exchange for more than was granted",
                stage.exchange("crm", loot.crm_token, ARCHIVE, "crm.export"),
                400,
                "scope_refused",
            ),
            check("exchange for crm.read", stage.exchange("crm", loot.crm_token, ARCHIVE, "crm.read"), 200),
        ),
        records=(stage.record("crm", lambda r: r["reason"] == "insufficient_scope"),),
    )


def _forgery(stage: Stage, loot: Loot) -> Scene:
    forged, forging = stage.mint_svid(WRITER, "partner.example")
    lawful, minting = stage.mint_svid(WRITER, "acme.example")
    return Scene(
        ATTACKS,
        "forgery: a partner's CA mints one of our names",
        "The CRM trusts partner.example for partner.example's workloads. Its CA signs a certificate that says "
        f"{WRITER}. The twin is the same certificate, signed by acme.example.",
        (
            _prepend(forging, check("our name, signed by a partner's CA", _present(stage, forged, loot), 0)),
            _prepend(minting, check("our name, signed by our CA", _present(stage, lawful, loot), 200)),
        ),
        records=(stage.record("crm", lambda r: r["event"] == "connection.refused"),),
    )


def _careless_service(stage: Stage) -> Scene:
    """Make the front app's call through a sidecar with an impersonating token service, then with the honest one."""
    call = ("/planner/a2a", "login.header", *stage.message("ask", QUESTION["question"], customer=QUESTION["customer"]))
    heard = _count_requests(stage)
    refused = stage.local_call("careless", *call)
    heard_after = _count_requests(stage)
    return Scene(
        ATTACKS,
        "a token service that does not delegate",
        "It answers 200 and ignores the actor token, as stock servers do. What it issues is genuine and impersonates "
        "alice. The twin asks the service that delegates.",
        (
            check("a token service that does not delegate", refused, 502, "sts_no_act"),
            fact("… and nothing left the sidecar", "the planner was not called", held=heard == heard_after),
            check("the same call, the delegating service", stage.local_call("front", *call), 200),
        ),
        records=(stage.record("careless", lambda r: r["reason"] == "sts_no_act" and r["event"] == "request"),),
    )


def _present(stage: Stage, svid: Sequence[str], loot: Loot) -> Answer:
    asked = stage.tool_call("read_customer", customer="42")
    return stage.mesh_call("crm", "/mcp", *svid, "--header", f"@{loot.crm_header}", *asked)


def _prepend(commands: Sequence[str], checked: Check) -> Check:
    return Check(checked.title, [*commands, *checked.commands], checked.expected, checked.said, checked.held)


def _count_requests(stage: Stage) -> int:
    return sum(record["direction"] == "inbound" for record in stage.records("planner"))


def _environment_of(pid: int) -> list[str]:
    """Return the environment variables set for the writer alone; it shares the rest with whoever runs the demo."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return sorted(pair for pair in pairs if pair.partition("=")[0].endswith("_URL"))
