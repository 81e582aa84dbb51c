"""Stages of a sweep from the checks to a registered model, their driver, and resume."""
