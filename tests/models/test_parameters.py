from __future__ import annotations

import pytest

from fastmtl.models import HGFN, MTMLAN, reference_parameters


def test_references_of_other_models() -> None:
    mtmlan, hgfn = MTMLAN(4, 2, hidden_size=3), HGFN({"text": 4}, 2, hidden_size=3)
    with pytest.raises(TypeError, match=r"^reference: .* MTMLAN, got ReferenceHGFN"):
        reference_parameters(mtmlan, hgfn.reference())
    with pytest.raises(TypeError, match=r"^reference: .* HGFN, got HGFN"):
        reference_parameters(hgfn, hgfn)
    with pytest.raises(ValueError, match=r"^reference: expected the sizes of the model"):
        reference_parameters(mtmlan, MTMLAN(5, 2, hidden_size=3).reference())
