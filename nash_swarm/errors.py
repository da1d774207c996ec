"""Deliberate errors and warnings; the command line prints each as one line, errors with an exit code."""


class NashSwarmError(Exception):
    """Base of all deliberate errors. `exit_code` is the exit code of the command line."""

    exit_code = 1


class UsageError(NashSwarmError, ValueError):
    """The request is invalid (unknown name, impossible budget, conflicting options)."""

    exit_code = 2


class BudgetError(UsageError):
    """The budget is too small; the message names the smallest feasible one."""


class OutputError(UsageError):
    """The output path holds something that nash-swarm may not replace."""


class DataError(NashSwarmError, ValueError):
    """A model, text or file is missing, damaged, or not what it claims to be."""


class ApiChangedError(NashSwarmError):
    """A library no longer has a name or signature that is used; the message names the versions that were tried."""


class NashSwarmWarning(UserWarning):
    """Base of all deliberate warnings, printed on standard error."""


class CalibrationWarning(NashSwarmWarning):
    """No calibration token reaches part of a model; its damage is estimated from the weights alone."""


class LeftOutWarning(NashSwarmWarning):
    """An input or request has no effect on the result (tensors, files, text, rules without a match)."""


class TimeLimitWarning(NashSwarmWarning):
    """A solver reached its time limit; the message names the certified gap of its allocation to the optimum."""


class SlowerWarning(NashSwarmWarning):
    """A slower path than usual is taken; the message names the reason."""


class TextWarning(NashSwarmWarning):
    """The calibration or evaluation text may not represent the texts the model will see."""
