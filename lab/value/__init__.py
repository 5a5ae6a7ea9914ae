"""Value models: collect samples of a model and reward of your own, train a small network to foretell the end, check it."""
