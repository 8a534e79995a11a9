"""The one exception that stands for a mistake a user can mend, and a common case of it."""


class M4MError(Exception):
    """Something in the user's files, arguments or configuration is wrong.

    Its message is one line: what is wrong, where, and what to do about it. The command line prints
    it on stderr and exits with status 2; every other exception is a defect of the program.
    """


def lacking(what: str, extra: str) -> M4MError:
    """The error that what is needed has not been installed; `extra` brings it."""
    return M4MError(f"{what}, which a checkout of m4m_jax installs: pip install -e '.[{extra}]'")
