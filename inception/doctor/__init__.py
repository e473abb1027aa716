"""Examines a machine, its data and a config before a long run."""
