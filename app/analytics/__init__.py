"""Pure functions over NumPy arrays: no clock, no input or output, nothing of the rest of the application."""
