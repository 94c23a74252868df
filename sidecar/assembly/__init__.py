"""Assembly of one sidecar: makes its parts and listeners from the settings. No logic.

- ``server``: the whole sidecar
- ``sides``, ``stranger_sides``: inbound, outbound, plain and door; each has a listener, journeys and an upstream pool
- ``setup``: the part that a reload replaces
"""
