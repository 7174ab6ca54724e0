"""The HTTP API: one module an endpoint, wire types in ``schema``."""
