"""How runs are made, one by one or side by side."""
