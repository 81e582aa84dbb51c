"""Registered models: their versions, aliases and the history of these."""
