"""Runs experiments of the paper with several seeds and compares them."""
