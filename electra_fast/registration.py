"""Giving an op to torch: its fake and its autograd formula, once for every library that has kernels of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Formula:
    """What torch must know of an op besides its kernels.

    fake, backward_fake: the outputs' shapes and dtypes, from the arguments of the schemas of the op and its backward.
    differentiable: which arguments have gradients. Of the outputs only the first has one.
    save(inputs, output): the tensors, and a tuple of other values, that the backward needs.
    backward(derivative, grad, tensors, values): the gradients of the differentiable arguments; ``derivative`` is the
    backward's kernel and takes the arguments of its schema.
    An op without a derivative has a fake only.
    """

    fake: Callable
    backward_fake: Callable | None = None
    differentiable: slice | None = None
    save: Callable | None = None
    backward: Callable | None = None


def attach(
    op: str,
    name: str,
    formula: Formula,
    kernels: str,
    launchers: tuple[Callable, Callable | None] | None = None,
) -> Callable:
    """Register the formula for ``torch.ops.<name>``, ``name`` being "namespace::function", and for its backward,
    ``name`` + "_backward". Returns what runs the op. kernels: whose they are, for the message. launchers: the Python
    functions that the op and its backward are, if they are; torch's dispatcher is left out where nobody would notice.
    """
    torch.library.register_fake(name, formula.fake)
    overload = _overload(name)
    forward, backward = launchers or (None, None)
    if formula.backward is None:
        return _without_derivative(op, overload, _undispatched(overload, forward))
    torch.library.register_fake(f"{name}_backward", formula.backward_fake)
    derivative = _undispatched(_overload(f"{name}_backward"), backward)

    def first_derivative(ctx, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: torch would leave this op out of it with no more than a warning
            raise RuntimeError(f"{op}: {kernels} kernels have no second derivative; use_backend('reference') has one")
        if grad is None:
            return (None,) * (formula.differentiable.stop - formula.differentiable.start)
        return formula.backward(derivative, grad, ctx.saved_tensors, ctx.values)

    _register_autograd(name, overload, formula, first_derivative)
    return _without_detour(op, overload, forward, formula, first_derivative)


def _register_autograd(name: str, overload: Callable, formula: Formula, derivative: Callable) -> None:
    """The formula as torch.library takes it: of all arguments and all outputs."""
    before = (None,) * formula.differentiable.start
    after = (None,) * (len(overload._schema.arguments) - formula.differentiable.stop)

    def setup_context(ctx, inputs: tuple, output: Tensor | tuple) -> None:
        if not isinstance(output, Tensor):
            ctx.mark_non_differentiable(*output[1:])
        _save(ctx, formula, inputs, output)

    def backward(ctx, grad: Tensor | None, *_) -> tuple[Tensor | None, ...]:
        return (*before, *derivative(ctx, grad), *after)

    torch.library.register_autograd(name, backward, setup_context=setup_context)


def _save(ctx, formula: Formula, inputs: tuple, output: Tensor | tuple) -> None:
    tensors, ctx.values = formula.save(inputs, output)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _overload(name: str) -> Callable:
    namespace, function = name.split("::")
    return getattr(getattr(torch.ops, namespace), function).default


_PLAIN = {torch.Tensor, torch.nn.Parameter, type(None), bool, int, float, torch.dtype}


def _undispatched(overload: Callable, launcher: Callable | None) -> Callable:
    """The op, or the launcher that it calls, where that makes no difference but 10 µs: on plain tensors, and with no
    mode, transform or profiler that would see the op."""
    if launcher is None:
        return overload

    def call(*args):
        if (
            _PLAIN.issuperset(map(type, args))
            and torch._C._len_torch_dispatch_stack() == 0
            and torch._C._len_torch_function_stack() == 0
            and torch._C._functorch.peek_interpreter_stack() is None
            and not torch._C._autograd._profiler_enabled()
        ):
            return launcher(*args)
        return overload(*args)

    return call


def _checked(op: str, function: Callable, args: tuple):
    """Call the op; what its boundary refuses is a ValueError, as in the reference (the stable ABI has but one kind)."""
    try:
        return function(*args)
    except RuntimeError as error:
        if str(error).startswith(f"{op}: "):
            raise ValueError(str(error)) from None
        raise


def _without_derivative(op: str, overload: Callable, eager: Callable) -> Callable:
    def call(*args):
        return overload(*args) if torch.compiler.is_compiling() else _checked(op, eager, args)

    return call


def _without_detour(
    op: str, overload: Callable, launcher: Callable | None, formula: Formula, derivative: Callable
) -> Callable:
    """The op for eager mode: the same formula, attached here rather than by torch.library's Python kernel, which takes
    about 25 µs of every call. autograd is shown only what has a gradient: each input, and above all each output, that
    passes through it takes time. While tracing it is the op itself."""

    def below_autograd(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)

    inside, outside = _undispatched(below_autograd, launcher), _undispatched(overload, launcher)

    def forward(ctx, others: list[Tensor], args: tuple, *differentiable: Tensor | None) -> Tensor:
        output = _checked(op, inside, args)
        _save(ctx, formula, args, output)
        if isinstance(output, Tensor):
            return output
        others.extend(output[1:])
        return output[0]

    def backward(ctx, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *derivative(ctx, grad)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(op, (torch.autograd.Function,), methods)
    apply = super(torch.autograd.Function, function).apply  # Function.apply itself: for torch.func, 3 µs

    def call(*args):
        if torch.compiler.is_compiling():
            return overload(*args)
        if not torch.is_grad_enabled():
            return _checked(op, outside, args)
        others: list[Tensor] = []
        run = apply if torch._C._functorch.peek_interpreter_stack() is None else function.apply
        first = run(others, args, *args[formula.differentiable])
        return (first, *others) if others else first

    return call
