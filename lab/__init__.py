"""The laboratory: experiments, benchmarks, training and tools. They stand on the package; the package knows nothing of them."""
