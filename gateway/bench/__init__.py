"""The project's own benchmarks, behind `dormouse bench`."""
