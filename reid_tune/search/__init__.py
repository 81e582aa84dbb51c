"""The search: samplers, early stopping, budget, warm starts and parameter importance."""
