"""Speed of cores, environments and training."""
