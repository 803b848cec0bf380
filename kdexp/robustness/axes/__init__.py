"""The axes of a robustness report, one file each, see `kdexp.robustness.axes.base`."""
