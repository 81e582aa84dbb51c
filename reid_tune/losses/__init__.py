"""Losses on a whole batch: identity, triplet, and their sum."""
