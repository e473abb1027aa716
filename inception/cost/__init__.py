"""Counts parameters, multiply-adds and activations, and draws the architecture."""
