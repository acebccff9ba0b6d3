"""What a model costs and how good its pictures are."""
