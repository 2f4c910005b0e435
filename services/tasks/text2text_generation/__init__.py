"""text2text-generation: translations and summaries."""
