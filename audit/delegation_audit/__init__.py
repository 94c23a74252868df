"""Audits of records and logs, offline: chains, attribution, static credentials, SPIRE selectors, ratios."""

__version__ = "0.1.0"
