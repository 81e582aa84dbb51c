"""Augmentation of whole batches on the CPU or a GPU."""
