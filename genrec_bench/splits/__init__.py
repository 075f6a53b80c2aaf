"""Rules that turn interactions into rows for training, validation and test; one plug-in a file."""
