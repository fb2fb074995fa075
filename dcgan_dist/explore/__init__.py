"""What the paper does to look inside the networks (sections 5 and 6), each beside its control.

One file per method, each with an `explore(subject, ...)` that returns a `Finding`; the mathematics of each
is a function of tensors, so that toys with known answers can test it. Kept out: training, and pages.
"""
