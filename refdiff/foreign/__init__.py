"""Weights of other libraries: read without executing anything in them, mapped by name, and written back."""
