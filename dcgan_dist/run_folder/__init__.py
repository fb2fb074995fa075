"""What lies in a run folder, whose it is, and how it is opened."""
