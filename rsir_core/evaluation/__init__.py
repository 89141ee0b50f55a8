"""Evaluation: arms, metrics, tables, plots and the report."""
