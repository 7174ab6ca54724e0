"""A layer's small operations as one launch each, in Triton for CUDA devices: a file an idea. Importing such a
file imports triton; importing the package does not."""
