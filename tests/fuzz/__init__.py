"""Fuzzing: one harness for each reader of foreign bytes, and what feeds them. See CONTRIBUTING.md, "Fuzzing"."""
