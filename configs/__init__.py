"""The experiments: base.py says every field, each other file is its parent plus a change."""
