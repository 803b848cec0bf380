"""What ``kdexp-doctor`` checks before a run: the data, the teacher, each term of the loss in a few steps, the cost."""
