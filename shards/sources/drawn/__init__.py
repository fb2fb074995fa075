"""Pictures that are drawn: each a pure function of its seed and position."""
