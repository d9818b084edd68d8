"""What layers in a database have in common: calls in batches with a journal, targets as numbers."""
