"""AttentionShift, in the order of the paper."""
