"""Traces and records for an OpenTelemetry collector. Without ``tracing`` only ``settings.py`` is imported.

A span is made of a request's record, in a thread of its own, after the request has ended. So the request itself only
pays for what its record has not: the parent of its span, and the decision to record it (``entries.py``).
"""
