"""Django commands of the application `"daphne"`."""
