"""The formats that a student is exported to: one file each."""
