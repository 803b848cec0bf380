"""What a configuration becomes, and one run of it from the data to results.json."""
