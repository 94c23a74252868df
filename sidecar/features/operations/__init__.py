"""Base of the protocols above HTTP: reads the operation of a request, for routes of MCP, A2A and gRPC.

Settings: ``settings.py``
Decisions: ``core/delegation_core/operation.py``, ``core/delegation_core/callable.py``
Forwarding: ``operation.py``, ``sides.py``, ``content.py``
Page: ``docs/contributing/operation.md``
"""
