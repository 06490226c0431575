"""Balancers: task weights from the losses and gradients of the one backward pass."""

from fastmtl.balancing.aligned_mtl import AlignedMTL
from fastmtl.balancing.base import Balancer
from fastmtl.balancing.cagrad import CAGrad
from fastmtl.balancing.conflict_free import ConFIG
from fastmtl.balancing.db_mtl import DBMTL
from fastmtl.balancing.dual_proj import DualProj
from fastmtl.balancing.dynamic_average import DynamicWeightAverage
from fastmtl.balancing.dynamic_multi_task import DynamicMultiTask
from fastmtl.balancing.equal import Equal
from fastmtl.balancing.fair_grad import FairGrad
from fastmtl.balancing.famo import FAMO
from fastmtl.balancing.geometric import GeometricMean
from fastmtl.balancing.grad_norm import GradNorm
from fastmtl.balancing.gradvac import GradVac
from fastmtl.balancing.gramian import GramianBalancer
from fastmtl.balancing.imtl import IMTL
from fastmtl.balancing.imtl_g import IMTLG
from fastmtl.balancing.imtl_l import IMTLL
from fastmtl.balancing.mgda import MGDA
from fastmtl.balancing.nash_mtl import NashMTL
from fastmtl.balancing.pcgrad import PCGrad
from fastmtl.balancing.random_weighting import RandomLossWeighting
from fastmtl.balancing.stch import STCH
from fastmtl.balancing.task_dynamic import TaskDynamicBalancing
from fastmtl.balancing.uncertainty import UncertaintyWeighting
from fastmtl.balancing.upgrad import UPGrad

__all__ = [
    "DBMTL",
    "FAMO",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "STCH",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "DynamicMultiTask",
    "DynamicWeightAverage",
    "Equal",
    "FairGrad",
    "GeometricMean",
    "GradNorm",
    "GradVac",
    "GramianBalancer",
    "NashMTL",
    "PCGrad",
    "RandomLossWeighting",
    "TaskDynamicBalancing",
    "UPGrad",
    "UncertaintyWeighting",
]
