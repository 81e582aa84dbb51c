"""Execution of runs on Ray: sources of runs, workers, placement, failures."""
