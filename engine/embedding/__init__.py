"""Models that make one vector of a text: what they are, and how they step."""
