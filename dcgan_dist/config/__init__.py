"""All settings of a run, the rules between them, and how they are read. Needs no torch."""
