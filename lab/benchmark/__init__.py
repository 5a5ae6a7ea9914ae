"""Where the time and memory of a search go: ``python -m lab.benchmark --help``.

``clock.py`` measures what the machine can do and where the seconds go, ``models.py`` makes models of any published size with random
weights, ``runs.py`` puts them together; operations and bytes are counted by ``ttsvar_core/costs.py``.
"""
