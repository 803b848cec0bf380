"""The student's training: the step, what watches it, checkpoints."""
