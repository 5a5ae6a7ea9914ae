"""Experiments over prompts and seeds: what the search gains, measured on any model and reward. Start reading at `runner`."""
