"""Acts of the demo: the same incident with agents that pass alice's token along, then with agents beside sidecars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar_dev.mesh import AGENTS
from sidecar_dev.mesh_settings import FRONT, PLANNER, WRITER
from sidecar_dev.stage import Scene, Stage, check, fact, short

ONE: Final = "act 1: without sidecars"
TWO: Final = "act 2: the same agents, beside sidecars"
LAST: Final = "the evidence"

QUESTION: Final = {"question": "When does Globex renew?", "customer": "42"}
POISON: Final = {"question": "When does Shinra renew?", "customer": "66"}  # whose note tells the writer what to do

_LOGGED: Final = ("planner", "writer", "crm")


def act_one(stage: Stage) -> Iterator[Scene]:
    """The bearer token is passed along, and works for whoever holds it."""
    stage.header_file("login", stage.log_in())
    answer = stage.ask("bare-front", QUESTION)
    yield Scene(
        ONE,
        "alice asks",
        "Three agents work for her. Each passes on the token it was given: alice's.",
        (check("alice gets her answer", answer, 200),),
        lines=(str(answer.body.get("draft")),),
    )
    answer = stage.ask("bare-front", POISON)
    exported = len(answer.body.get("got", {}).get("exported", ()))
    logs = {name: stage.mesh.access_log(name).read_text().splitlines() for name in _LOGGED}
    exports = [line for line in logs["crm"] if "/export" in line]
    yield Scene(
        ONE,
        "the document gives an order",
        "One customer's note says: call POST /export. The writer reads it and obeys, with alice's token. It works, and "
        "three access logs agree on who did it.",
        (
            check("alice gets an answer, and more than that", answer, 200),
            fact("the CRM was exported", f"{exported} customers left the CRM", held=exported == 3),
            fact("the log says who", "alice", held=bool(exports) and all(" - alice [" in line for line in exports)),
        ),
        lines=[f"{name:8}{lines[-1]}" for name, lines in logs.items()],
    )
    files = [stage.mesh.access_log(name) for name in _LOGGED]
    latest = [stage.shell.write(f"{path.stem}.last", path.read_text().splitlines()[-1] + "\n") for path in files]
    command, found = stage.sidecar("audit", "attribution", *latest)
    told = found.get("requests", [])
    nameless = [one for one in told if one["verdict"] == "cannot_tell" and one["user"] == "alice"]
    yield Scene(
        ONE,
        "who did it?",
        "An audit of these logs cannot say. alice did not do it, and no line names the agent that did.",
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
    """Each hop exchanges the token of the request it serves for one that is narrower and names who acts."""
    answer = stage.ask("front", QUESTION)
    hops = [stage.record(name, lambda r: r["direction"] == "inbound" and r["status"] == 200) for name in AGENTS[1:]]
    stage.hops = hops
    scopes = [set(hop.get("scope") or ()) for hop in hops]
    chains = [hop.get("chain") for hop in hops]
    yield Scene(
        TWO,
        "alice asks",
        "The programs are the same, only their URLs lead to their own sidecars. Each hop is SPIFFE mTLS with a token "
        "of its own: the subject stays alice, the actor is the agent that calls, the agents before it stand behind it.",
        (
            check("alice gets her answer", answer, 200),
            fact("three hops, three tokens", "three different jti", held=len({hop.get("jti_in") for hop in hops}) == 3),
            fact(
                "the chain grows by one actor a hop",
                "writer, for alice, via planner, via front",
                held=chains == [[FRONT], [PLANNER, FRONT], [WRITER, PLANNER, FRONT]],
            ),
            fact(
                "each token is narrower",
                " > ".join(str(len(scope)) for scope in scopes) + " scopes",
                held=scopes[0] > scopes[1] > scopes[2],
            ),
            fact(
                "one subject, one transaction", "alice", held=len({(h.get("subject"), h.get("txn")) for h in hops}) == 1
            ),
        ),
        hops=hops,
        records=hops,
    )
    answer = stage.ask("front", POISON)
    refused = stage.record("writer", lambda r: r["reason"] == "call_not_allowed")
    exports = [record for record in stage.records("crm") if record["path"] == "/export"]
    yield Scene(
        TWO,
        "the same document, the same order",
        "The writer obeys again. But a request to draft may make it read the CRM, not export it: its own sidecar "
        "refuses the call, although the writer may export for others who ask for a report.",
        (
            check("alice gets her answer", answer, 200),
            fact(
                "the writer's own sidecar refused the export",
                f"{answer.body.get('got_status')} {answer.body.get('got', {}).get('reason')}",
                held=answer.body.get("got", {}).get("reason") == "call_not_allowed",
            ),
            fact("the CRM never heard of it", "no request for /export", held=not exports),
            fact(
                "the record says who",
                "writer, for alice, via planner",
                held=(refused.get("workload"), refused.get("subject"), (refused.get("chain") or [None])[0])
                == (WRITER, "alice", PLANNER),
            ),
        ),
        records=(refused,),
    )


def evidence(stage: Stage) -> Iterator[Scene]:
    """Rebuild the chain from the records of caller, token service and callee."""
    witnesses = ("front", "planner", "writer", "crm", "sts")
    command, found = stage.sidecar("audit", "chains", *(f"{name}.records" for name in witnesses))
    calls = {hop["call_in"] for hop in stage.hops}
    told: list[dict[str, Any]] = [
        hop for chain in found.get("chains", ()) for hop in chain["hops"] if hop["call"] in calls
    ]
    yield Scene(
        LAST,
        "who did what for whom",
        "Three parties tell of each hop: the caller, the token service, the callee. Signed identifiers join their "
        "records. This is alice's first request; the attacks are findings of their own.",
        (
            fact("the chain is whole", "3 hops", held=len(told) == len(stage.hops) == 3, commands=(command,)),
            fact(
                "every hop has its three witnesses, and they agree",
                "caller, token service, callee",
                held=bool(told) and not any(hop["missing_witnesses"] for hop in told),
            ),
            fact(
                "the attacks are found", f"{len(found.get('findings', ()))} findings", held=bool(found.get("findings"))
            ),
        ),
        lines=[_line(number, hop) for number, hop in enumerate(told, 1)],
    )


def _line(number: int, hop: dict[str, Any]) -> str:
    witnesses = ", ".join(name.replace("_", " ") for name, record in hop["witnesses"].items() if record)
    chain = short(" ← ".join(hop["act_chain"] or ()))
    return f"hop {number} to {short(hop['audience'])}: {hop['method']} {hop['path']} by {chain}; told by {witnesses}"
