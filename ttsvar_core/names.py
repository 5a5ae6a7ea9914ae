"""The names users choose by, told once: command line, nodes and the modules that carry them out read them here.

Nothing is imported, so that the command line answers at once.
"""

BUNDLED = "scenes128"
"""The small model that comes with the pack."""
PLANS = ("raw", "best-of-n", "importance-sampling", "tts-var", "funnel", "beam")
PAPER = "tts-var"
BUDGET = 4
"""Pictures that a search costs where nothing is said: at most, or on average where it ends once an answer is good enough."""
POTENTIALS = ("value", "diff", "max", "sum")
SCHEMES = ("multinomial", "systematic", "stratified", "residual", "top-k", "without-replacement")
BLENDS = ("rank", "softmax", "z-score", "weighted")
MEANS = ("geometric", "arithmetic")
"""Of a picture's answers: geometric where all must hold, arithmetic for how much of the prompt is there."""
REDUCERS = ("PCA", "PCA-shared", "Pool")
CACHE_POLICIES = ("keep", "float8", "cpu", "drop")
MAX_SEED = 2**64 - 1
DTYPES = ("float32", "bfloat16", "float16")
PIXEL_BUDGETS = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}
"""Budgets of the published models with the number of scales each runs."""
