"""What is run: suites, profiles and settings become named runs."""
