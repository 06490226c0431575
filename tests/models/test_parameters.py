from __future__ import annotations

import pytest

from fastmtl.models import (
    HGFN,
    MTMLAN,
    FusionBaseline,
    paired_parameters,
    reference_parameters,
)


def test_twins_of_other_models() -> None:
    mtmlan, hgfn = MTMLAN(4, 2, hidden_size=3), HGFN({"text": 4}, 2, hidden_size=3)
    with pytest.raises(TypeError, match=r"^twin: .* MTMLAN, gives, got TorchFusionModel"):
        paired_parameters(mtmlan, hgfn.to_torch())
    with pytest.raises(TypeError, match=r"^twin: .* HGFN, gives, got HGFN"):
        paired_parameters(hgfn, hgfn)
    with pytest.raises(ValueError, match=r"^twin: expected the sizes of the model"):
        paired_parameters(mtmlan, MTMLAN(5, 2, hidden_size=3).to_torch())


def test_twins_of_other_fusions() -> None:
    models = [
        HGFN({"text": 4}, 2, hidden_size=3),
        *(FusionBaseline({"text": 4}, 2, 3, fusion=name) for name in ("cfc", "matf", "gfn")),
    ]
    for model in models:
        for other in models:
            if other is not model:
                with pytest.raises(TypeError, match=r"^twin: expected what to_torch of the model"):
                    paired_parameters(model, other.to_torch())


def test_old_names_warn() -> None:
    model = MTMLAN(4, 2, hidden_size=3)
    with pytest.warns(DeprecationWarning, match=r"^MTMLAN\.reference is now to_torch$") as caught:
        twin = model.reference()
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"^reference_parameters is now") as caught:
        pairs = reference_parameters(model, twin)
    assert caught[0].filename == __file__
    assert all(parameter[part].equal(own) for parameter, part, own in pairs)
    with pytest.warns(DeprecationWarning, match=r"^MTMLAN\.task_weight: where ") as caught:
        assert model.task_weight(where="first") is model.task_weight("first")
    assert caught[0].filename == __file__
