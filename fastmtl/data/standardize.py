"""Zero mean and unit variance for every feature, as the training rows have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from fastmtl.data.checks import chunk_rows, padding_mask
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.lengths import Lengths, of_modality
from fastmtl.data.missing import absent_rows
from fastmtl.data.stored import StoredFeatures, Values

# Rounding alone gives a constant column a standard deviation of about 1e-16 of its mean; and below
# the second bound float32 has no reciprocal.
_CONSTANT, _TINY = 1e-9, 1e-37


class Standardizer:
    """Shift and scale features by the mean and standard deviation of the training rows.

    z = (x - mean) / scale for each feature of each modality, over rows and valid steps. `scale` is
    the population standard deviation, and 1 for a feature that is constant. Sums are float64. Rows
    of a modality that samples lack are left out, and stay what they are.

    Examples:
        >>> from fastmtl.data import synthetic
        >>> data = synthetic.disaster(100, 5, 8)
        >>> standardizer = Standardizer().fit(data)
        >>> standardizer.transform(data).subset("train").x.mean().abs().item() < 1e-5
        True
        >>> sorted(standardizer.state_dict())
        ['x.mean', 'x.scale']
    """

    def __init__(self) -> None:
        self._mean: dict[str, Tensor] = {}
        self._scale: dict[str, Tensor] = {}

    def fit(
        self,
        data: MultiTaskData | Tensor | Mapping[str, Tensor],
        rows: Tensor | Sequence[int] | None = None,
        lengths: Lengths = None,
    ) -> Standardizer:
        """Measure mean and scale, and return self.

        Args:
            data: a data set, or features (N, D) or (N, L, D), or a dict of them.
            rows: the rows to measure, by default the training split of a data set and all rows of
                features.
            lengths: (N,), or by modality, leaves padded steps out; a data set brings its own.

        Raises:
            ValueError: for features that are NaN or infinite, other than in whole rows of one of
                several modalities, and for no rows.
        """
        parts, valid = _unpack(data, lengths)
        optional = len(parts) > 1 or isinstance(data, MultiTaskData)
        if rows is None and isinstance(data, MultiTaskData):
            rows = data.indices("train")
        mean, scale = {}, {}
        for name, x in parts.items():
            chosen = torch.arange(len(x)) if rows is None else torch.as_tensor(rows)
            if not len(chosen):
                raise ValueError("rows: expected at least one row to fit on, got none")
            mean[name], scale[name] = _moments(name, x, chosen, valid[name], optional)
        self._mean, self._scale = mean, scale
        return self

    @overload
    def transform(
        self, data: MultiTaskData, lengths: None = None, *, inplace: bool = False
    ) -> MultiTaskData: ...
    @overload
    def transform(
        self, data: Tensor, lengths: Lengths = None, *, inplace: bool = False
    ) -> Tensor: ...
    @overload
    def transform(
        self, data: Mapping[str, Tensor], lengths: Lengths = None, *, inplace: bool = False
    ) -> dict[str, Tensor]: ...
    def transform(
        self,
        data: MultiTaskData | Tensor | Mapping[str, Tensor],
        lengths: Lengths = None,
        *,
        inplace: bool = False,
    ) -> MultiTaskData | Tensor | dict[str, Tensor]:
        """Standardised features, in the form that came: data set, tensor or dict.

        Padded steps become 0.

        Args:
            data: a data set, or features, of the kind that was fitted.
            lengths: (N,), or by modality, the valid steps; a data set brings its own.
            inplace: overwrite the features that came instead of making a second array.

        Raises:
            ValueError: if modalities or feature counts are not the fitted ones.
        """
        parts, valid = _unpack(data, lengths)
        if set(parts) != set(self._mean):
            fitted = ", ".join(self._mean) or "nothing (fit first)"
            raise ValueError(f"data: expected the modalities {fitted}, got {', '.join(parts)}")
        for name, x in parts.items():
            if x.shape[-1] != len(self._mean[name]):
                expected = f"expected {len(self._mean[name])} features, got {x.shape[-1]}"
                raise ValueError(f"{name}: {expected}")
        if isinstance(data, MultiTaskData):
            of_data = {
                name: x.then(_Scaled(self._mean[name], self._scale[name]))
                if isinstance(x, StoredFeatures)
                else self.transform_modality(name, x, valid[name], inplace=inplace)
                for name, x in parts.items()
            }
            return replace(data, x=of_data if isinstance(data.x, dict) else of_data["x"])
        tensors = {**data} if isinstance(data, Mapping) else {"x": data}
        done = {
            name: self.transform_modality(name, x, valid[name], inplace=inplace)
            for name, x in tensors.items()
        }
        return done["x"] if isinstance(data, Tensor) else done

    def transform_modality(
        self, name: str, x: Tensor, lengths: Tensor | None = None, *, inplace: bool = False
    ) -> Tensor:
        """What `transform` does to one modality, without its checks: they read values and sizes,
        which a graph that is exported does not have.

        Args:
            name: of the modality; a single tensor's is "x".
            x: its features, (N, D) or (N, L, D).
            lengths: (N,), the valid steps.
            inplace: overwrite `x`.
        """
        mean = self._mean[name].to(x.device, x.dtype)
        scale = self._scale[name].to(x.device, x.dtype)
        return _scaled(x, mean, scale, lengths, inplace=inplace)

    def state_dict(self) -> dict[str, Tensor]:
        """Float32 tensors (D,) named `<modality>.mean` and `<modality>.scale`."""
        state = {}
        for name in self._mean:
            state[f"{name}.mean"] = self._mean[name].clone()
            state[f"{name}.scale"] = self._scale[name].clone()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Standardizer:
        """Take over the state of another one, and return self.

        Args:
            state: what `state_dict` gave.

        Raises:
            ValueError: for anything else.
        """
        names = [key.removesuffix(".mean") for key in state if key.endswith(".mean")]
        expected = {f"{name}.{part}" for name in names for part in ("mean", "scale")}
        if not names or set(state) != expected:
            got = ", ".join(sorted(state)) or "nothing"
            raise ValueError(f"state: expected <modality>.mean and <modality>.scale, got {got}")
        for name in names:
            mean, scale = state[f"{name}.mean"], state[f"{name}.scale"]
            if mean.dim() != 1 or mean.shape != scale.shape:
                got = f"{tuple(mean.shape)} and {tuple(scale.shape)}"
                raise ValueError(f"state: expected vectors of one size for {name!r}, got {got}")
        self._mean = {name: state[f"{name}.mean"].float().clone() for name in names}
        self._scale = {name: state[f"{name}.scale"].float().clone() for name in names}
        return self


class _Scaled:
    """What `transform` does to the rows that are read of features in a file."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self._placed = (mean, scale)

    def __call__(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if self._placed[0].device != x.device:
            self._placed = (self._placed[0].to(x.device), self._placed[1].to(x.device))
        return _scaled(x, *self._placed, lengths, inplace=True)


def _scaled(
    x: Tensor, mean: Tensor, scale: Tensor, lengths: Tensor | None, *, inplace: bool = False
) -> Tensor:
    out = (x.sub_(mean) if inplace else x - mean).div_(scale)
    if lengths is not None and x.dim() == 3:
        out.masked_fill_(padding_mask(out, lengths), 0.0)
    return out


def _unpack(
    data: MultiTaskData | Tensor | Mapping[str, Tensor], lengths: Lengths
) -> tuple[dict[str, Values], dict[str, Tensor | None]]:
    """Features and lengths by modality."""
    if isinstance(data, MultiTaskData):
        if lengths is not None:
            raise ValueError("lengths: expected None beside a data set, which has its own")
        parts, lengths = data.features(), data.lengths
    else:
        parts = {**data} if isinstance(data, Mapping) else {"x": data}
    for name, x in parts.items():
        if x.dim() not in (2, 3) or x.dtype not in (torch.float32, torch.float64):
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            raise ValueError(f"{name}: expected float32 or float64 (N, D) or (N, L, D), got {got}")
        valid = of_modality(lengths, name)
        if valid is not None and valid.shape != x.shape[:1]:
            shape = tuple(valid.shape)
            raise ValueError(f"lengths: expected shape ({len(x)},) as {name!r} has, got {shape}")
    steps = {name: x.shape[1] for name, x in parts.items() if x.dim() == 3}
    if isinstance(lengths, Tensor) and len(set(steps.values())) > 1:
        raise ValueError(f"lengths: expected sequences of one number of steps, got {steps}")
    return parts, {name: of_modality(lengths, name) for name in parts}


def _chunks(
    x: Values, rows: Tensor, lengths: Tensor | None, optional: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows of `x` in float64 as (n, D), with a mask (n, 1) of the padded ones; without those that
    are missing, if `optional` ones may be."""
    for chosen in rows.to(x.device).split(chunk_rows(x)):
        part = x[chosen].double()
        valid = None if lengths is None or x.dim() == 2 else lengths.to(x.device)[chosen]
        if optional and (absent := absent_rows(part, valid)) is not None:
            part = part[~absent]
            valid = None if valid is None else valid[~absent]
        padded = None if valid is None else padding_mask(part, valid).flatten(0, 1)
        yield part.flatten(0, -2), padded


def _moments(
    name: str, x: Values, rows: Tensor, lengths: Tensor | None, optional: bool
) -> tuple[Tensor, Tensor]:
    """Mean and scale of each feature, (D,) float32 each, in two passes."""
    total, count = torch.zeros(x.shape[-1], dtype=torch.float64, device=x.device), 0
    for part, padded in _chunks(x, rows, lengths, optional):
        if padded is not None:
            part.masked_fill_(padded, 0.0)
        total += part.sum(0)
        count += len(part) - (0 if padded is None else int(padded.sum()))
    if not bool(total.isfinite().all()):
        column = int((~total.isfinite()).nonzero()[0])
        raise ValueError(
            f"{name}: expected finite features, got NaN or infinity in column {column}"
        )
    if not count:
        raise ValueError(f"data: expected a training sample that has {name}, got none")
    mean = total / count
    squares = torch.zeros_like(total)
    for part, padded in _chunks(x, rows, lengths, optional):
        part -= mean
        if padded is not None:
            part.masked_fill_(padded, 0.0)
        squares += part.square_().sum(0)
    scale = (squares / count).sqrt()
    scale[scale <= (_CONSTANT * mean.abs()).clamp(min=_TINY)] = 1.0
    return mean.float().cpu(), scale.float().cpu()
