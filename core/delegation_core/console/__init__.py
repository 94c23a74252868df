"""Output of commands: tables, JSON, examples of their help, and how to install a missing distribution."""
