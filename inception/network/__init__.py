"""The networks of the paper: figures, stages, and what makes them fast."""
