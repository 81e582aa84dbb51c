"""The training loop, its workers, precision and progress."""
