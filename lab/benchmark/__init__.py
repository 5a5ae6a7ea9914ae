"""Where the time and memory of a search go: ``python -m lab.benchmark --help``.

``count.py`` counts floating-point operations and cache bytes from shapes, ``clock.py`` measures what the machine can do and
where the seconds go, ``models.py`` makes models of any published size with random weights, ``runs.py`` puts them together.
"""
