"""What the parts cost and what they cannot cost less than: one way of measuring, and the work it is applied to."""
