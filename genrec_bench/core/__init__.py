"""What everything may use: errors, settings, registries, files, progress."""
