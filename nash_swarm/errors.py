"""The errors nash-swarm raises on purpose; the command line turns each into one line and an exit code."""


class NashSwarmError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(NashSwarmError, ValueError):
    """The caller asked for something that cannot be (unknown name, impossible budget, clashing options)."""

    exit_code = 2


class BudgetError(UsageError):
    """The budget cannot be met; the message names the smallest one that can."""


class OutputError(UsageError):
    """What stands where an output should go is not for nash-swarm to replace."""


class DataError(NashSwarmError, ValueError):
    """A model, text or file is missing, damaged, or not what it claims to be."""


class ApiChangedError(NashSwarmError):
    """A library no longer has a name or signature that is used; the message names the versions that were tried."""


class NashSwarmWarning(UserWarning):
    """Base of every warning given on purpose; the command line prints each as one line on standard error."""


class CalibrationWarning(NashSwarmWarning):
    """Part of a model was not reached by the calibration text, and is judged by its weights alone."""


class LeftOutWarning(NashSwarmWarning):
    """Something that was given or asked for is not in the result (tensors, files, text, rules without a match)."""


class TimeLimitWarning(NashSwarmWarning):
    """A solver ran out of time; the message names the gap to the optimum that its allocation is certified to keep."""


class SlowerWarning(NashSwarmWarning):
    """A slower way is taken than the one that was to be expected; the message names the reason."""


class TextWarning(NashSwarmWarning):
    """The calibration or evaluation text may be of another kind than what figures are taken to hold for."""
