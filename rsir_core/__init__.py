"""Remote-sensing image retrieval: everything that needs no cluster. Importing it loads no ray."""
