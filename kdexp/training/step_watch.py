"""What watches a training step: losses that are no longer finite."""


class Diverged(RuntimeError):
    """A part of the loss, a weight or a validation metric became NaN or Inf."""

    status = "diverged"  # in results.json
