"""What is fast, against what: the PyTorch build of the systems and the measurements."""
