"""Assembly of one sidecar: makes its parts and listeners from the settings. No logic.

- ``server``: the whole
- ``sides``: inbound, plain, outbound and door, each a listener, its journeys and the connections behind it
- ``setup``: the part that a reload replaces
"""
