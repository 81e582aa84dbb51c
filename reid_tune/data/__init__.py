"""Image folders: records, splits, decoding, identity batches and augmentation."""
