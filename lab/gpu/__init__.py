"""All that only a graphics card can tell, in one command of at most nine minutes: ``python -m lab.gpu --help``.

``runner.py`` runs the checks one by one, each in a process and with a time of its own, and writes what is known after every one;
``parity.py`` compares every path with the processor's numbers, ``speed.py`` says where seconds and memory go, ``launches.py``
whether CUDA graphs or compiled blocks would pay, ``limits.py`` what happens where memory ends. ``place.py`` is what they run on.
"""
