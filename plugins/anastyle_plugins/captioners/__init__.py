"""Captioners: what writes words for the images of a prepared set."""
