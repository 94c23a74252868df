"""MCP: operations, sessions, and lists filtered by what the reader may call.

Settings: ``sidecar/config/operation_model.py``, ``sidecar/config/operation_checks.py``,
    ``sidecar/config/operation_words.py``
Decisions: ``sidecar/delegation/mcp.py``, ``sidecar/delegation/mcp_fields.py``, ``sidecar/delegation/mcp_lists.py``,
    ``sidecar/delegation/mcp_session.py``, ``sidecar/delegation/json_rpc.py``, ``sidecar/delegation/callable.py``
Forwarding: ``feature.py``, ``operation.py``, ``sessions.py``, ``forwarding.py``, ``list_forwarding.py``,
    ``warm.py``
Page: ``docs/mcp.md``
"""
