"""Data sets (one file each), splits, augmentation and loading."""
