"""Autoencoders, one file each."""
