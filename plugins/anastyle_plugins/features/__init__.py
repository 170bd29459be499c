"""Features, one file each."""
