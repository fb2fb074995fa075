"""The training loop, and what rank 0 does beside it."""
