"""MCP: operations, sessions, and lists filtered by what the reader may call.

Settings: ``settings.py``
Decisions: ``core/delegation_core/mcp.py``, ``core/delegation_core/mcp_fields.py``,
    ``core/delegation_core/mcp_lists.py``, ``core/delegation_core/mcp_session.py``,
    ``core/delegation_core/json_rpc.py``, ``core/delegation_core/callable.py``
Forwarding: ``feature.py``, ``operation.py``, ``sessions.py``, ``forwarding.py``, ``list_forwarding.py``, ``warm.py``
Page: ``docs/mcp.md``
"""
