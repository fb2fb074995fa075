"""Picture bytes to square uint8 RGB and back. Above `tars`."""
