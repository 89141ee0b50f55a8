"""The demo: the whole way on an archive that it draws, and the pictures of it."""
