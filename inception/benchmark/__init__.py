"""Measures speed, memory and start-up beside what people would use instead: __main__.py."""
