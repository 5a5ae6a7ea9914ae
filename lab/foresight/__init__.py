"""Foresight: collect pictures that a model draws, and train a small network to foretell them from their first scales."""
