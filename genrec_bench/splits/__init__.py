"""How interactions become rows for training, validation and test."""
