"""Does each text move what it should, and nothing else? Swapped texts, and what the codes hold."""
