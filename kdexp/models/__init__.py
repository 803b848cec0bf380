"""Networks: one file a family, constructor functions that take ``num_classes`` and ``input_shape``."""
