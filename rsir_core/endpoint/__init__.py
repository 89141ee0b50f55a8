"""The endpoint over HTTP: routes, messages, tokens, access log and the search page."""
