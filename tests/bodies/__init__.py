"""What clients send to the API: good bodies, and what becomes of them when clients get them wrong."""
