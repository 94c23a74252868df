"""Base of the protocols above HTTP: reads the operation of a request, for routes of MCP, A2A and gRPC.

Settings: ``sidecar/config/operation_model.py``, ``sidecar/config/operation_checks.py``,
    ``sidecar/config/operation_words.py``
Decisions: ``sidecar/delegation/operation.py``, ``sidecar/delegation/callable.py``
Forwarding: ``operation.py``, ``sides.py``, ``content.py``
Page: ``docs/contributing/operation.md``
"""
