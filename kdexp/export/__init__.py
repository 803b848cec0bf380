"""The student outside of kdexp: loaded, predicting, exported, described and shared."""
