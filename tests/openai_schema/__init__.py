"""OpenAI's own schema, and what holds our answers against it wherever a test causes one.

Answers to ``/v1``, streamed or not, and errors anywhere: the callers of the tests look at all that pass.
"""
