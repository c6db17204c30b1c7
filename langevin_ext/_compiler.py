"""What torch's compiler is told, without importing it: that takes longer than the rest of the package and torch."""


def assume_constant_result(function):
    """As `torch.compiler.assume_constant_result`: the result is a constant for the compiler."""
    function._dynamo_marked_constant = True
    return function
