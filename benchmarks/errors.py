"""What ends a run."""


class BenchmarkError(Exception):
    """Something that ends a run, in one sentence: a contestant that gives back something else, a program that is missing."""
