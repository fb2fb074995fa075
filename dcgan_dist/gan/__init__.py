"""The two networks and one update of them: no ranks, no files, no clocks."""
