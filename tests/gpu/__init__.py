"""One script that checks and measures the whole GPU path: `python -m tests.gpu`; see docs/operations/gpu.md."""
