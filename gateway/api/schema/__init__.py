"""What goes over the wire, as msgspec structs: OpenAI's names and shapes, and Dormouse's own.

In requests unknown fields are accepted and ignored, null means the default, and a wrong type or a value out
of range is refused by the decoder, which names the field.
"""
