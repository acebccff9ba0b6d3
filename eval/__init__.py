"""Scripts that produce the numbers of the README; the protocol of each is in `eval/README.md`."""
