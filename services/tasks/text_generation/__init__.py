"""text-generation: a text goes on, a conversation is answered."""
