"""What functions of PyTorch do, in the words that JAX has for it, so that sites are found by the
same rules. A function that stands nowhere here is some linear one, such as a normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbundles.observe.jaxprs import ELEMENTWISE, words

_BY_PRIMITIVE = {
    # Nonlinear functions of one array, element by element, by what makes them so.
    "max": """celu clamp_min elu hardshrink leaky_relu maximum prelu relu relu6 rrelu selu softplus
        softshrink threshold""",
    "clamp": "clamp clip hardsigmoid hardswish hardtanh",
    "min": "clamp_max minimum",
    "erf": "erf gelu",
    "erfc": "erfc",
    "logistic": "glu logsigmoid sigmoid silu",
    "tanh": "mish softsign tanh tanhshrink",
    "select_n": "where",
    # Other functions of elements.
    "abs": "abs absolute",
    "add": "add iadd radd",
    "convert_element_type": "bfloat16 double float half to type type_as",
    "copy": "clone contiguous data detach dropout",
    "cos": "cos",
    "div": "div divide itruediv rdiv rtruediv true_divide truediv",
    "eq": "eq",
    "exp": "exp",
    "expm1": "expm1",
    "ge": "ge",
    "gt": "gt greater",
    "le": "le",
    "log": "log",
    "log1p": "log1p",
    "lt": "less lt",
    "mul": "imul mul multiply rmul",
    "ne": "ne",
    "neg": "neg negative positive",
    "pow": "float_power ipow pow rpow",
    "rsqrt": "rsqrt",
    "sign": "sign",
    "sin": "sin",
    "sqrt": "sqrt",
    "square": "square",
    "sub": "isub rsub sub subtract",
    # What only places things elsewhere.
    "reshape": """H T cat chunk concat expand expand_as flatten flip gather getitem index_select mH
        mT movedim narrow pad permute pixel_shuffle pixel_unshuffle ravel repeat repeat_interleave
        reshape reshape_as roll select split squeeze stack swapaxes t tensor_split tile transpose
        unbind unflatten unfold unsqueeze view view_as""",
    "gather": "embedding",
    # Products.
    "dot_general": "addmm baddbmm bilinear bmm einsum inner linear matmul mm mv rmatmul tensordot",
    "conv_general_dilated": """conv1d conv2d conv3d conv_transpose1d conv_transpose2d
        conv_transpose3d""",
    # Statistics of many elements, and what is no data.
    "reduce_sum": """all amax amin any argmax argmin cumsum max mean min norm prod std std_mean sum
        topk var var_mean vector_norm""",
    "iota": "arange empty empty_like full full_like linspace new_full new_ones new_zeros ones "
    "ones_like tensor zeros zeros_like",
    "random_bits": "bernoulli rand rand_like randint randn randn_like randperm",
}
# Several things at once, which are seen from outside only, and what is in them.
COMPOSITE: Mapping[str, frozenset[str]] = {
    "gru": words("dot_general logistic tanh"),
    "gru_cell": words("dot_general logistic tanh"),
    "log_softmax": words("exp max"),
    "logsumexp": words("exp max"),
    "lstm": words("dot_general logistic tanh"),
    "lstm_cell": words("dot_general logistic tanh"),
    "multi_head_attention_forward": words("dot_general exp max"),
    "rnn_relu": words("dot_general max"),
    "rnn_relu_cell": words("dot_general max"),
    "rnn_tanh": words("dot_general tanh"),
    "rnn_tanh_cell": words("dot_general tanh"),
    "scaled_dot_product_attention": words("exp max"),
    "softmax": words("exp max"),
    "softmin": words("exp max"),
}
# What a user may look for inside them.
LAYERS_INSIDE = {
    "gru": "activation",
    "gru_cell": "activation",
    "lstm": "activation",
    "lstm_cell": "activation",
    "multi_head_attention_forward": "linear",
    "rnn_relu": "activation",
    "rnn_relu_cell": "activation",
    "rnn_tanh": "activation",
    "rnn_tanh_cell": "activation",
}
# Which of the arguments matter for where a value comes from and who reads it: no biases, no slopes;
# and of attention not the projection of its output, since that reads no input.
OPERANDS = {
    "addmm": slice(1, 3),
    "baddbmm": slice(1, 3),
    "bilinear": slice(3),
    "conv1d": slice(2),
    "conv2d": slice(2),
    "conv3d": slice(2),
    "conv_transpose1d": slice(2),
    "conv_transpose2d": slice(2),
    "conv_transpose3d": slice(2),
    "linear": slice(2),
    "multi_head_attention_forward": slice(11),
    "prelu": slice(1),
}
# Where they are given by name; what is written into is none either.
NO_OPERANDS = words("bias out out_proj_weight out_proj_bias")
PRIMITIVES = {
    name: primitive for primitive, names in _BY_PRIMITIVE.items() for name in names.split()
}


def name_of(function: object) -> str:
    """The name of a function without the underscores of operators and of what works in place;
    ``__get__`` of a property is called as the property."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
    name = name.partition(".")[0]  # of `torch.ops` without the overload, as in ``relu_.default``
    return name.strip("_") or type(function).__name__


def is_elementwise(name: str) -> bool:
    """Whether each element of what a function makes depends on those at its place alone."""
    return PRIMITIVES.get(name) in ELEMENTWISE


def operands(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a function that matter, see `OPERANDS`."""
    if PRIMITIVES.get(name) == "iota":  # of what they are given these take the shape
        return ()
    named = [value for key, value in kwargs.items() if key not in NO_OPERANDS]
    return (*args[OPERANDS.get(name, slice(None))], *named)
