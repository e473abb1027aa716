"""How does it learn? State, losses, optimizer, step, and the loop around them."""
