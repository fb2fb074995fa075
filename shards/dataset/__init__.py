"""A finished dataset: its index, its reader, and what is done with it as a whole. Above `pictures`."""
