"""Tests of the demo models and of the code that made them."""
