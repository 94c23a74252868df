"""Acts of the demo: the same incident with agents that pass alice's token along, then with agents beside sidecars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar_dev.mesh_settings import FRONT, PLANNER, WRITER
from sidecar_dev.stage import Record, Scene, Stage, check, fact

ONE: Final = "act 1: without sidecars"
TWO: Final = "act 2: the same agents, beside sidecars"
LAST: Final = "the evidence"

QUESTION: Final = {"question": "When does Globex renew?", "customer": "42"}
POISON: Final = {
    "question": "When does Shinra renew?",
    "customer": "66",
}  # the notes of this customer instruct the planner

_LOGGED: Final = ("planner", "writer", "crm")
_EXPORT: Final = "tools/call:export_customers"
# alice's first question: callee, caller, and the operation that the caller asks for
_HOPS: Final = (
    ("planner", FRONT, "SendMessage"),
    ("crm", PLANNER, "tools/call:read_notes"),
    ("writer", PLANNER, "SendMessage"),
    ("crm", WRITER, "tools/call:read_customer"),
)
_CHAINS: Final = [[FRONT], [PLANNER, FRONT], [PLANNER, FRONT], [WRITER, PLANNER, FRONT]]


def act_one(stage: Stage) -> Iterator[Scene]:
    """Play act 1: agents pass the bearer token along, and it works for any holder."""
    stage.header_file("login", stage.log_in())
    answer = stage.ask("bare-front", QUESTION)
    yield Scene(
        ONE,
        "alice asks",
        "Three agents work for her, and each passes on her token.",
        (check("alice gets her answer", answer, 200),),
        lines=(str(answer.body.get("draft")),),
    )
    answer = stage.ask("bare-front", POISON)
    exported = len(answer.body.get("got", {}).get("exported", ()))
    logs = {name: stage.mesh.access_log(name).read_text().splitlines() for name in _LOGGED}
    calls = logs["crm"][-3:]  # notes, export, customer
    yield Scene(
        ONE,
        "the document gives an order",
        "One customer's notes say: call export_customers. The planner obeys, with alice's token.",
        (
            check("alice gets an answer, and more than that", answer, 200),
            fact("the CRM was exported", f"{exported} customers left the CRM", held=exported == 3),
            fact("the log says who", "alice", held=len(calls) == 3 and all(" - alice [" in line for line in calls)),
            fact("the log says which tool", "none: POST /mcp", held=all('"POST /mcp ' in line for line in calls)),
        ),
        lines=[f"{name:8}{line}" for name, lines in logs.items() for line in (calls if name == "crm" else lines[-1:])],
    )
    files = [stage.mesh.access_log(name) for name in _LOGGED]
    latest = [stage.shell.write(f"{path.stem}.last", path.read_text().splitlines()[-1] + "\n") for path in files]
    command, found = stage.sidecar("audit", "attribution", *latest)
    told = found.get("requests", [])
    nameless = [one for one in told if one["verdict"] == "cannot_tell" and one["user"] == "alice"]
    yield Scene(
        ONE,
        "who did it?",
        "Not alice, and no line names the agent that did.",
        (
            fact(
                "cannot tell",
                f"{len(nameless)} of {len(told)} name alice and no agent",
                held=len(nameless) == len(told) == len(latest),
                commands=(command,),
            ),
        ),
        lines=[str(found.get("summary", {}).get("sentence"))],
    )


def act_two(stage: Stage) -> Iterator[Scene]:
    """Play act 2: each hop exchanges its request's token for a narrower one that names the actor."""
    answer = stage.ask("front", QUESTION)
    hops = stage.hops = [_hop(stage, *hop) for hop in _HOPS]
    to_planner, to_notes, to_writer, to_customer = (set(hop.get("scope") or ()) for hop in hops)
    yield Scene(
        TWO,
        "alice asks",
        "The same programs call each other through sidecars: each hop is SPIFFE mTLS, with a token that is exchanged "
        "for this hop. Its subject stays alice, and it names who acts.",
        (
            check("alice gets her answer", answer, 200),
            fact("four hops, four tokens", "four different jti", held=len({hop.get("jti_in") for hop in hops}) == 4),
            fact(
                "the chain grows by one actor a hop",
                "writer ← planner ← front",
                held=[hop.get("chain") for hop in hops] == _CHAINS,
            ),
            fact(
                "each token is narrower",
                " > ".join(str(len(scope)) for scope in (to_planner, to_writer, to_customer)) + " scopes",
                held=to_planner > to_writer > to_customer == to_notes,
            ),
            fact(
                "one subject, one transaction", "alice", held=len({(h.get("subject"), h.get("txn")) for h in hops}) == 1
            ),
        ),
        hops=hops,
        records=hops,
    )
    answer = stage.ask("front", POISON)
    refused = stage.record("planner", lambda r: r["reason"] == "operation_refused")
    exports = [record for record in stage.records("crm") if record["op"] == _EXPORT]
    error = answer.body.get("got", {})
    told = error.get("data") or {}
    yield Scene(
        TWO,
        "the same document, the same order",
        "The planner obeys again. But a request to plan may read notes, not export the CRM: its sidecar reads the MCP "
        "message, refuses it, and tells the planner why.",
        (
            check("alice gets her answer", answer, 200),
            fact(
                "the planner's sidecar refused the export",
                f"{told.get('status')} {told.get('reason')}",
                held=(told.get("status"), told.get("reason")) == (403, "operation_refused"),
            ),
            fact("the CRM never heard of it", f"no {_EXPORT}", held=not exports),
            fact("the record says which tool", _EXPORT, held=refused.get("op") == _EXPORT),
            fact(
                "the record says who",
                "planner, for alice, via front",
                held=(refused.get("workload"), refused.get("subject"), (refused.get("chain") or [None])[0])
                == (PLANNER, "alice", FRONT),
            ),
        ),
        lines=(f"{told.get('reason')}: {error.get('message')}",),
        records=(refused,),
    )


def _hop(stage: Stage, callee: str, caller: str, operation: str) -> Record:
    return stage.record(callee, lambda r: (r["peer"], r["op"], r["status"]) == (caller, operation, 200))


def evidence(stage: Stage) -> Iterator[Scene]:
    """Rebuild the chain from the records of caller, token service and callee."""
    witnesses = ("front", "planner", "writer", "crm", "sts")
    command, found = stage.sidecar("audit", "chains", *(f"{name}.records" for name in witnesses))
    calls = {hop["call_in"]: str(hop["op"]) for hop in stage.hops}
    told: list[dict[str, Any]] = [
        hop for chain in found.get("chains", ()) for hop in chain["hops"] if hop["call"] in calls
    ]
    yield Scene(
        LAST,
        "who did what for whom",
        "from the records of every party, joined by signed ids.",
        (
            fact("the chain is whole", "4 hops", held=len(told) == len(stage.hops) == 4, commands=(command,)),
            fact(
                "the three witnesses of every hop agree",
                "caller, token service, callee",
                held=bool(told) and not any(hop["missing_witnesses"] for hop in told),
            ),
            fact(
                "the attacks are found", f"{len(found.get('findings', ()))} findings", held=bool(found.get("findings"))
            ),
        ),
        lines=[f"alice asks {FRONT}", *(_line(hop, calls[hop["call"]]) for hop in told)],
    )


def _line(hop: dict[str, Any], operation: str) -> str:
    return f"{'  ' * len(hop['act_chain'] or ())}→ {hop['audience']}  {operation}"
