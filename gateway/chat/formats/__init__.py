"""How models write tool calls: one module a way of writing, each a few lines over ``Reader``."""
