"""What the commands behind docs/tpu.md say of themselves."""

from __future__ import annotations

import pytest

from m4m_jax.tpu import scaling, table


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (table, ("DIR", "not compiled again", "lm-3-v5e-16x16", "between its marks")),
        (scaling, ("DIR", "not compiled again", "a PNG")),
    ],
)
def test_every_option_is_explained(command, words, capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(word in told for word in words)
