"""The network: backbone -> pooling -> projection -> neck -> classifier."""
