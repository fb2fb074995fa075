"""Every random number of a run, from (seed, purpose, step): there is no hidden generator state to save.

A run that resumes at step t draws for step t what the unbroken run drew, on any number of ranks.
"""

import hashlib


def seed_for(seed: int, purpose: str, step: int = 0) -> int:
    """A 63-bit seed, different for every (seed, purpose, step) and the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
