"""Scientific machine-learning benchmarks for supercomputers: figures that stand up in a contract."""

__version__ = "0.1.0"
