"""Planning and running studies: cells in, a graph of stages out, every stage an artifact."""
