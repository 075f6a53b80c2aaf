"""How semantic IDs are found and how beam search is diagnosed."""
