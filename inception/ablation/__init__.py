"""Compares experiments of the paper: rows.py (what is run), statistics.py, report.py, plots.py."""
