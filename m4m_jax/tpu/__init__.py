"""Training and sampling programs compiled for TPUs without a TPU, and what they cost there."""
