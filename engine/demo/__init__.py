"""Two tiny chat models of different families that ship with Dormouse, and the code that made them."""
