"""The index on storage: its tables, how they change, and what is in them."""
