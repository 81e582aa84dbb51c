"""Losses of a whole batch: identity, triplet and center loss."""
