from __future__ import annotations

from fastmtl import balancing
from fastmtl.training.recipes import BALANCERS


def test_every_balancer_is_listed(call):
    code, out, err = call("balancers")
    assert (code, err) == (0, "")
    for name, recipe in BALANCERS.items():
        assert f" {name} " in out
        assert recipe.kind.__name__ in out
    assert "Gramian" in out


def test_every_method_can_be_named():
    methods = {getattr(balancing, name) for name in balancing.__all__}
    bases = {balancing.Balancer, balancing.GramianBalancer}
    assert methods - bases == {recipe.kind for recipe in BALANCERS.values()}
