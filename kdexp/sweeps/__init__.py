"""Many runs: jobs, their processes, what a sweep keeps on disk."""
