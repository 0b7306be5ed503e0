"""Exceptions that are not bugs."""


class UserError(ValueError):
    """A mistake in what the user handed in: a path, a value, a file's content.

    The message is one sentence that names the file, field or value, says what was expected and
    how to mend it. Commands print it and exit with code 2; in Python it is a `ValueError`.
    """


class Preempted(Exception):
    """A run stopped on SIGTERM, after it saved its state."""


class DeviceError(RuntimeError):
    """An accelerator that JAX does not find, or that another process uses; later there may be one.

    Commands print it and exit with a code that tells launchers and schedulers to try again.
    """
