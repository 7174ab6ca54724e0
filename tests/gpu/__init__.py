"""Checks that need a CUDA device: plain functions, which pytest collects under the marker ``gpu`` and
``tests.gpu.checks`` runs where there is no pytest."""
