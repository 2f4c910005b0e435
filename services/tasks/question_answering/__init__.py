"""question-answering: spans of a context that answer a question."""
