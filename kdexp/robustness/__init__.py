"""Robustness of networks: corruptions, attacks, shifted and foreign data, calibration. Tensors in, numbers out.

A corruption's operator is called as ``operator(inputs, index, seed=..., **parameters)`` with a whole batch: images
(N, C, H, W) in [0, 1], standardised features, or texts (N, L) as code points, on any device, and the samples' ids (N,).
It returns new inputs of the same shape and range. What it does to a sample is a function of (seed, the sample's id):
not of the batch's size or composition. The draws do not depend on the parameters, so a sample at two severities has the
same noise, more or less of it.
"""
