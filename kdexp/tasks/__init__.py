"""What a batch becomes in each field of use: its two terms and its metrics."""
