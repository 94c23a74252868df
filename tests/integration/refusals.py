"""Expected answers to each attack of the demo: status and reason, 0 if there is no handshake."""

from __future__ import annotations

from typing import Final

REFUSALS: Final = {
    "the handle at another sidecar": (403, "no_request_context"),
    "the handle for a call its request may not make": (403, "call_not_allowed"),
    "the handle after its request": (403, "no_request_context"),
    "alice's token, no act": (401, "act_missing"),
    "stolen token, own SVID": (403, "actor_mismatch"),
    "the same at the token service": (400, "not_your_token"),
    "the writer at the token service": (400, "not_an_entry"),
    "export with crm.read": (403, "insufficient_scope"),
    "exchange for crm.export": (400, "scope_refused"),
    "minted by partner.example": (0, ""),
    "a token without an actor comes back": (502, "sts_no_act"),
}

# Of operations: only where the agents speak MCP and A2A, not in the example for Kubernetes.
OF_OPERATIONS: Final = {"the handle for another tool of the same server": (403, "operation_refused")}
