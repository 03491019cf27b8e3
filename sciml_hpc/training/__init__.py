"""The training loop, evaluation, inference and checkpoints."""
