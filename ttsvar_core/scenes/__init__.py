"""A world of coloured shapes on a canvas of 128 pixels: prompts, pictures, and a verifier that reads pictures."""
