<<<<<<< HEAD
"""The student taken home: files that run without kdexp, measured as they are."""
=======
"""The student outside of kdexp: loaded, predicting, exported, described and shared."""
>>>>>>> p19
