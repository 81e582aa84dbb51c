"""Registered models: their versions, their aliases and the history of the aliases."""
