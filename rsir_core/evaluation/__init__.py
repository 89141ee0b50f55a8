"""How good retrieval is: arms, metrics, tables, plots and the report."""
