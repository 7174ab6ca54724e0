"""The architectures: a table of families, and one decoder that they all share."""
