"""Speed of tfgen against PyTorch, plain Keras and the machine: `python -m tools.bench`."""
