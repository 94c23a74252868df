"""The delegation sidecar: every hop of an agent mesh carries its own proof of who acts for whom."""

__version__ = "0.1.0"
