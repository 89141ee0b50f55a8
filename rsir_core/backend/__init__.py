"""Backend: workers that describe and search, and the router that asks them."""
