"""Calls to hosts outside the mesh, and opaque tunnels.

Settings: ``settings.py``, ``federate_settings.py``
Decisions: ``core/delegation_core/outside.py``, ``core/delegation_core/connect.py``
Forwarding: ``calls.py``, ``keyed_forwarding.py``, ``tunnel_forwarding.py``, ``static_keys.py``
Page: ``docs/outside.md``
"""
