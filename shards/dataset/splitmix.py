"""The one hash that orders, shuffles and choices are made of: SplitMix's (Steele, Lea and Flood 2014).

A specification, unlike the random streams of libraries, which may change between releases.
"""

import numpy as np

from shards.arrays import U64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(value: U64) -> U64:
    """A 64-bit bijective hash of every element."""
    return finish(value + GOLDEN)


def finish(value: U64) -> U64:
    """Its finaliser alone, also a bijection; 0 stays 0."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
