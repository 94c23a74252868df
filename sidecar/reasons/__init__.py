"""Advice on every reason code. It knows the codes and nothing else, so that any command can show it."""
