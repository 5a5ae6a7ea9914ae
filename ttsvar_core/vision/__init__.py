"""What rewards and extractors share: preparing pictures and prompts, and published networks from published files."""
