"""One search at the terminal: its options, and the ways in which it is shown."""
