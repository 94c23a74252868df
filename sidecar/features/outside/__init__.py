"""Calls to hosts outside the mesh, and opaque tunnels.

Settings: ``sidecar/config/outbound_model.py``, ``sidecar/config/outside_checks.py``,
    ``sidecar/config/federate_model.py``, ``sidecar/config/federate_checks.py``
Decisions: ``sidecar/delegation/outside.py``, ``sidecar/delegation/connect.py``
Forwarding: ``calls.py``, ``keyed_forwarding.py``, ``tunnel_forwarding.py``, ``static_keys.py``
Page: ``docs/outside.md``
"""
