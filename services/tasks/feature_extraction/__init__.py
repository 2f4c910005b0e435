"""feature-extraction: vectors of texts, and the order that they give."""
