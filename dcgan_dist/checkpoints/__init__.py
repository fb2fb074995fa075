"""Checkpoints: whole or absent, at any URL, written in the background."""
