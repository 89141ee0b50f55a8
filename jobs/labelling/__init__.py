"""Labels of collections at the terminal: the options, and the ways in which they are shown."""
