"""What tests share: what they draw, write, serve and start."""
