"""What a network costs: counting.py counts it, diagram.py draws it."""
