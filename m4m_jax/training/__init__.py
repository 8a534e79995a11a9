"""Training: state, step, loop, hooks, checkpoints."""
