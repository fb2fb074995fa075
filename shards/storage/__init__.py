"""Any URL: ranged reads, writes that are whole or absent, retries, limits of time."""
