"""Observe mode: records refusals without enforcing them, on routes and until a day that settings name.

Settings: ``sidecar/config/inbound_model.py``, ``sidecar/config/outbound_model.py``,
    ``sidecar/config/observe_checks.py``
Decisions: ``sidecar/delegation/observed.py``, ``sidecar/delegation/decide.py``
Forwarding: ``observing.py``, ``plain.py``, ``shown_credentials.py``
Page: ``docs/observe.md``
"""
