"""The experiments: base.py has every field, each other file is its parent plus a change."""
