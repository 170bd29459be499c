"""From a publisher's files to batches: prepare, shards, split, loader, and the cache of frozen encodings."""
