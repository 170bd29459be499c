"""The components that ship with Anastyle; one file, one plugin, one name."""
