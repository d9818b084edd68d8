"""One command: `runserver`."""
