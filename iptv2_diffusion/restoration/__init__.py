"""Image restoration with the shared backbone."""
