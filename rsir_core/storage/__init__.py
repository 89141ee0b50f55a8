"""File systems by URI, what lies on them, and how a file becomes bytes."""
