"""Folders of crops: records, decoded images, splits, identity batches and augmentation."""
