"""Decisions on delegated authority, and the records of what was decided, without a socket."""

__version__ = "0.1.0"
