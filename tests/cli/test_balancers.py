from __future__ import annotations

from fastmtl import balancing
from fastmtl.training.recipes import BALANCERS

METHODS = {name: recipe.kind for name, recipe in BALANCERS.items()}


def test_every_balancer_is_listed(call):
    code, out, err = call("balancers")
    assert (code, err) == (0, "")
    for name, method in METHODS.items():
        assert f" {name} " in out
        assert method.__name__ in out
    assert "Gramian" in out


def test_every_method_can_be_named():
    assert METHODS.keys() == BALANCERS.keys()
    methods = {getattr(balancing, name) for name in balancing.__all__}
    bases = {balancing.Balancer, balancing.GramianBalancer}
    assert methods - bases == set(METHODS.values())
