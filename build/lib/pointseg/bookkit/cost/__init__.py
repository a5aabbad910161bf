"""What the parts cost and what they cannot cost less than.

One way of measuring, and the work it is applied to.
"""
