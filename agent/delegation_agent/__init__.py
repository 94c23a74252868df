"""The handle of the request that an agent serves, sent with its calls to the sidecar and with no other call."""

from delegation_agent.handles import HEADER, carry, handle, serving
from delegation_agent.outbound import ConfigurationError, Outbound, headers

__all__ = ["HEADER", "ConfigurationError", "Outbound", "carry", "handle", "headers", "serving"]
__version__ = "0.1.0"
