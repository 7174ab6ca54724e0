"""What only a GPU can show, part by part, each in a process of its own: `make gpu`."""
