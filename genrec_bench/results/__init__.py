"""What finished runs leave, and the folders that hold it."""
