"""A family as small as can be: what CONTRIBUTING.md describes, followed step by step."""
