"""The ops in Triton: the portable GPU backend. One file an op, kernels first, launchers after.

`implementations` has what `electra_fast.ops` calls, with the arguments of the ops' schemas, and `missing` says why an
op cannot run. Importing this needs no Triton and does not import it: a file of kernels is imported at the first call of
its op. With ``TRITON_INTERPRET=1`` in the environment before Triton is first imported, kernels run on CPU tensors in
Triton's interpreter, which is slow and for tests.
"""

from .registration import OPERATIONS, implementations, missing, register

__all__ = ["OPERATIONS", "implementations", "missing", "register"]
