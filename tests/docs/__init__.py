"""What writes the generated parts of docs/."""
