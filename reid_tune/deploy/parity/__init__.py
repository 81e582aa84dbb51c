"""Whether an exported file computes what its network computes."""
