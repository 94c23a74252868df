"""Calls to hosts outside the mesh, and opaque tunnels.

Settings: ``settings.py``, ``federate_settings.py``
Decisions: ``sidecar/delegation/outside.py``, ``sidecar/delegation/connect.py``
Forwarding: ``calls.py``, ``keyed_forwarding.py``, ``tunnel_forwarding.py``, ``static_keys.py``
Page: ``docs/outside.md``
"""
