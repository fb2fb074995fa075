"""How good samples are, as numbers: each score with its floor and its protocol."""
