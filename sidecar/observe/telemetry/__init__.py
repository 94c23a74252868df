"""Traces and records for an OpenTelemetry collector. Without ``tracing`` only ``settings.py`` is imported.

A span is made from a request's record, in a separate thread, after the request has ended. The request itself only
determines the parent of its span and the decision to record it (``entries.py``).
"""
