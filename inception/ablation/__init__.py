"""Compares experiments of the paper: rows.py (what is run), results.py, report.py, plots.py."""
