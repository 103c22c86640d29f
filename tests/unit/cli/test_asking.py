"""Ctrl-C at a question ends the question, and the command's own handling comes back afterwards."""

from __future__ import annotations

import signal

import pytest

from holdfast.cli.asking import NotAnswered, asking


def test_ctrl_c_is_an_answer_of_its_own_and_the_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(NotAnswered), asking():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is before


def test_the_end_of_input_is_no_answer_either() -> None:
    with pytest.raises(NotAnswered), asking():
        raise EOFError
