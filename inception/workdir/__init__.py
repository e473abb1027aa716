"""What a run keeps: its config, checkpoints and logs."""
