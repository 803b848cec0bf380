"""The student taken home: files that run without kdexp, measured as they are."""
