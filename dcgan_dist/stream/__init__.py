"""From shards at a URL to uint8 batches: plan (who reads what) -> feed (read, check, decode, assemble)."""
