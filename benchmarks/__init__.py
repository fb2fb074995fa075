"""What was measured, how, and against whom: each module measures side by side in one run and appends JSON
lines."""
