"""From a source to a dataset: in parallel, resumable, shared among machines. Above `sources`."""
