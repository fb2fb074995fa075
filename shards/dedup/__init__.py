"""De-duplication (section 4.1.1 of the paper): an autoencoder's code as a hash, equal codes as duplicates.

Shards are never rewritten: the index marks what is not to be served. `ranks` and `autoencoder` need torch,
nothing else here does.
"""
