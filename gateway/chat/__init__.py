"""Between messages and text: from a conversation to a prompt."""
