"""The bytes of shards and of foreign tars: headers, records, samples, DALI's index. Above `storage`."""
