"""Observe mode: records refusals without enforcing them, on routes and until a day that settings name.

Settings: ``settings.py``
Decisions: ``sidecar/delegation/observed.py``, ``sidecar/delegation/decide.py``
Forwarding: ``observing.py``, ``plain.py``, ``shown_credentials.py``
Page: ``docs/observe.md``
"""
