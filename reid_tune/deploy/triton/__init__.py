"""Triton: model repositories, and a client for the server."""
