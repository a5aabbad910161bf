"""Networks that learn from labels, with their losses and post-processing."""
