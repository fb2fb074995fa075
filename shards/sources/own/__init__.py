"""Somebody's own pictures: a folder, tars, faces found in photographs."""
