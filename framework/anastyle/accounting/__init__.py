"""What a run counts, computes and keeps in memory, found on the meta device (``anastyle params``)."""
