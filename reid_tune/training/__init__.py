"""Training: the loop, its workers, data, numerics and reporting."""
