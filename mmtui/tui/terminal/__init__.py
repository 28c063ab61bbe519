"""The terminal: what it is sent and what it sends. The only place that knows private parts of Textual."""
