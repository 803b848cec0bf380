"""The configuration: how it is composed, typed, identified and trusted."""
