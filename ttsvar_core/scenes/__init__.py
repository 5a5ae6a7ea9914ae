"""A world of coloured shapes: prompts, pictures, and a verifier that reads pictures. What the bundled model draws."""
