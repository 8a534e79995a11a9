"""Processes that start together: those that are missing are named, by all that came."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from m4m_jax.errors import M4MError
from m4m_jax.training import roll_call
from m4m_jax.training.hosts import join
from tests.devices import free_port


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def answers(who, of: int, seconds: float, address: str | None = None) -> list[str]:
    """What each of these processes is told; empty where all came."""
    address = address or free_address()

    def one(process: int) -> str:
        try:
            roll_call.answer(address, of, process, seconds)
        except M4MError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(who)) as pool:
        return list(pool.map(one, who))


def test_all_come_in_any_order():
    assert answers([3, 2, 1, 0], 4, 10) == [""] * 4


def test_missing_processes_are_named_by_all_that_came():
    begun = time.monotonic()
    told = answers([0, 2], 4, 1)
    assert time.monotonic() - begun < 5
    assert len(set(told)) == 1
    assert "after 1 s, processes 1, 3 of 4 did not come to" in told[0]


def test_a_missing_first_process_is_named_by_its_address():
    address = free_address()
    (told,) = answers([1], 2, 1, address)
    assert f"process 0 of the run was not found at {address} (Connection refused)" in told


def test_whoever_knocks_without_a_word_is_not_counted():
    address = free_address()
    host, port = address.split(":")

    def knock(_):
        time.sleep(0.3)
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")

    with ThreadPoolExecutor(1) as pool:
        stranger = pool.submit(knock, None)
        (told,) = answers([0], 2, 1, address)
        stranger.result()
    assert "process 1 of 2 did not come to" in told


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        (told,) = answers([0], 2, 1, f"127.0.0.1:{port}")
    assert f"port {port} of --coordinator cannot be used: " in told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("a:1", None, None), "go together; give all three"),
        (("a:1", 2, 2), "process 2 is not one of 2"),
        (("a", 2, 0), "--coordinator a is not HOST:PORT"),
    ],
)
def test_mistakes(given, words):
    with pytest.raises(M4MError, match=words):
        join(*given)
