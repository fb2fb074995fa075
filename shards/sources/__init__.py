"""Where pictures come from: one small file per origin, each a `Source` of `base`. Above `dataset`."""
