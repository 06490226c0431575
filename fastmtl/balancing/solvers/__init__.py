"""Solvers of small problems in the Gramian, in float64, that do not wait for the device."""

from fastmtl.balancing.solvers.bargaining import bargain
from fastmtl.balancing.solvers.dual_cone import dual_cone_weights
from fastmtl.balancing.solvers.eigen import symmetric_eigen
from fastmtl.balancing.solvers.inverse import least_solution
from fastmtl.balancing.solvers.settle import is_settled
from fastmtl.balancing.solvers.unit_gramian import UnitGramian

__all__ = [
    "UnitGramian",
    "bargain",
    "dual_cone_weights",
    "is_settled",
    "least_solution",
    "symmetric_eigen",
]
