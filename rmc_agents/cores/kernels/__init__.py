"""Fast versions of the cores, in C and in PyTorch.

The C code is compiled at first use. Where that is not possible the PyTorch code runs instead.
"""
