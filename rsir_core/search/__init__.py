"""Exact search by the class-weighted distance, and what narrows or moves a query. No file is opened here."""
