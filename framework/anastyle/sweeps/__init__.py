"""Sweeps: many runs of one experiment, each with other options, in search of the best."""
