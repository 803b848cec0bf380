"""The PNG files of a run and of a comparison, a file a figure."""
