"""How good is a network? Evaluation of runs and of imported weights."""
