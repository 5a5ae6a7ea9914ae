"""``python -m ttsvar_core``."""

from .cli import program

if __name__ == "__main__":
    program()
