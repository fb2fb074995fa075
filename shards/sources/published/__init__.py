"""Datasets as they were published, each read from its own files."""
