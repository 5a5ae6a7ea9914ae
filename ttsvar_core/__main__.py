"""``python -m ttsvar_core``."""

from .cli import main, program

if __name__ == "__main__":
    program(main)
