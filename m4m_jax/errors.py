"""The one exception that stands for a mistake a user can mend."""


class M4MError(Exception):
    """Something in the user's files, arguments or configuration is wrong.

    Its message is one line: what is wrong, where, and what to do about it. The command line prints
    it on stderr and exits with status 2; every other exception is a defect of the program.
    """
