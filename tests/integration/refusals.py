"""Expected answers to each attack of the demo: status and reason, 0 if there is no handshake."""

from __future__ import annotations

from typing import Final

REFUSALS: Final = {
    "the handle at another sidecar": (403, "no_request_context"),
    "the handle for a call not on its list": (403, "call_not_allowed"),
    "the handle after its request": (403, "no_request_context"),
    "alice's own token, which names no actor": (401, "act_missing"),
    "a stolen token, by another workload": (403, "actor_mismatch"),
    "a stolen token, exchanged": (400, "not_your_token"),
    "alice's login token, sent by the writer": (400, "not_an_entry"),
    "the export, with a token for reading": (403, "insufficient_scope"),
    "an exchange for more than was granted": (400, "scope_refused"),
    "our name, signed by a partner's CA": (0, ""),
    "a token service that does not delegate": (502, "sts_no_act"),
}

# Of operations: only where the agents speak MCP and A2A, not in the example for Kubernetes.
OF_OPERATIONS: Final = {"the handle for the server's other tool": (403, "operation_refused")}
