"""Fuzzing: one harness for each parser of foreign bytes, and its inputs. See CONTRIBUTING.md, "Fuzzing"."""
