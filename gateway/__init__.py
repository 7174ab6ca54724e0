"""The OpenAI-compatible door: HTTP, the fleet of models, timers and budgets. Never imports torch."""
