"""Command lines: the only place that reads flags, prints, and brings tasks, data and the engine together."""
