from __future__ import annotations

import inspect
import warnings

import pytest

from fastmtl._deprecation import deprecated, takes_old_arguments


class Layer:
    @takes_old_arguments("width", "bias", dropped=("tasks",), width="size")
    def __init__(
        self, name: str, *, size: int = 1, bias: bool = True, tasks: int | None = None
    ) -> None:
        """A layer."""
        self.given = (name, size, bias, tasks)


def test_calls_of_today_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Layer("a", size=2, bias=False).given == ("a", 2, False, None)


@pytest.mark.parametrize(
    ("call", "given", "named"),
    [
        (lambda: Layer("a", width=2), ("a", 2, True, None), "width"),
        (lambda: Layer("a", 2), ("a", 2, True, None), "width"),
        (lambda: Layer("a", 2, False), ("a", 2, False, None), "width, bias"),
        (lambda: Layer("a", 2, bias=False), ("a", 2, False, None), "width"),
        (lambda: Layer("a", tasks=3), ("a", 1, True, 3), "tasks"),
        (lambda: Layer("a", 2, tasks=3), ("a", 2, True, 3), "width, tasks"),
    ],
)
def test_old_calls_warn_once_at_their_line(call, given, named) -> None:
    with pytest.warns(DeprecationWarning, match="^Layer: ") as caught:
        assert call().given == given
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(caught[0].message) == (
        f"Layer: {named} given as in an older version; use Layer(name, *, size=1, bias=True)"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_argument_given_twice() -> None:
    for call in (lambda: Layer("a", 2, size=3), lambda: Layer("a", width=2, size=3)):
        with pytest.raises(TypeError, match=r"^size: expected once, got it twice$"):
            call()


def test_wrong_calls_fail_as_ever() -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        Layer("a", 2, False, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'height'"):
        Layer("a", height=2)


def test_signature_and_docstring_are_those_of_today() -> None:
    assert "width" not in inspect.signature(Layer).parameters
    assert Layer.__init__.__doc__ == "A layer."


def test_a_warning_names_the_line_of_the_caller() -> None:
    def old() -> None:
        deprecated("old: use new")

    with pytest.warns(DeprecationWarning, match="^old: use new$") as caught:
        old()
    assert caught[0].filename == __file__
