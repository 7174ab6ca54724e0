"""A fleet under a recorded or generated load, on a clock of its own: `dormouse simulate`."""
