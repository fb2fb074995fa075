"""How much of the classes a discriminator has learned without them: paper, sections 5 and 8 (appendix)."""
