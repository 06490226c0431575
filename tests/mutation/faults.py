"""Small faults, such as a tired engineer makes, and the tests that should notice them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A text of a file, found in it exactly once, and what stands there by mistake."""

    name: str
    path: str
    before: str
    after: str
    tests: tuple[str, ...]  # for pytest
    excuse: str = ""  # why it is not noticed, if that is known

    @property
    def is_native(self) -> bool:
        """Whether the native core has to be built for it; the tests build the CUDA kernels."""
        return self.path.startswith("csrc/") and not self.path.startswith("csrc/cuda/")


FOCAL = ("tests/ops/test_focal_loss.py",)
GROUPED = ("tests/ops/test_grouped_focal_loss.py",)
MULTILABEL = ("tests/ops/test_multilabel_loss.py",)
FUSION = ("tests/ops/test_graph_fusion.py",)
GRADS = ("tests/backends/test_task_grads.py", "tests/ops/test_task_grads.py")
NORMS = ("tests/ops/test_stacked_norms.py",)
SURGERY = ("tests/ops/test_gradient_surgery.py",)
PROGRAMS = ("tests/ops/test_nonnegative_qp.py",)
LEAST_NORM = ("tests/ops/test_least_norm.py",)
GRU = ("tests/ops/test_task_gru.py",)
CONTRACT = ("tests/ops/test_contract.py",)
OP = ("tests/ops/test_op.py",)
REGISTERED = ("tests/ops/test_registered.py",)
CUDA_FAULTS = ("tests/cuda/test_faults.py",)
TRAINER = "tests/training/test_trainer.py"

KERNELS = [
    Fault(
        "negatives-weighed-as-positives",
        "csrc/cpu/focal_loss.cpp",
        "const Real weighed = positive ? loss * weight : loss;",
        "const Real weighed = loss * weight;",
        FOCAL,
    ),
    Fault(
        "slope-of-negatives-has-wrong-sign",
        "csrc/cpu/focal_loss.cpp",
        "const Real weighed = positive ? slope * factor : -slope;",
        "const Real weighed = positive ? slope * factor : slope;",
        FOCAL,
    ),
    Fault(
        "margin-of-positives-clipped",
        "csrc/multilabel.h",
        "positive ? s.q : v,",
        "positive ? v : v,",
        MULTILABEL,
    ),
    Fault(
        "slope-of-the-focus-in-spite-of-detach",
        "csrc/multilabel.h",
        "args.detach_focus ? Real(0) : Real(1)",
        "args.detach_focus ? Real(1) : Real(1)",
        MULTILABEL,
    ),
    Fault(
        "soft-labels-taken-for-positives",
        "csrc/cpu/multilabel_loss.cpp",
        "if (!soft) return;",
        "if (!soft || soft) return;",
        MULTILABEL,
    ),
    Fault(
        "mean-over-all-labels",
        "csrc/cpu/loss_tiles.h",
        "loss[j] = Real(present > 0 ? sum / present : 0);",
        "loss[j] = Real(present > 0 ? sum / double(args.rows) : 0);",
        FOCAL,
    ),
    Fault(
        "short-last-tile-ends-the-sums",
        "csrc/cpu/loss_tiles.h",
        "used_ = std::max(used_, count);",
        "used_ = count;",
        FOCAL,
    ),
    Fault(
        "class-weights-of-the-first-group",
        "csrc/cpu/grouped_focal_loss.cpp",
        "find_margin(weights ? weights + offset : nullptr, tile);",
        "find_margin(weights, tile);",
        GROUPED,
    ),
    Fault(
        "label-among-its-competitors",
        "csrc/cpu/grouped_focal_loss.cpp",
        "sum[r] += own ? Real(0) : term;",
        "sum[r] += term;",
        GROUPED,
    ),
    Fault(
        "length-of-the-wrong-vertex",
        "csrc/cpu/graph_fusion.cpp",
        "grad.mixing[j * vertices + j] -= slope * cosine[e] / squares[j];",
        "grad.mixing[j * vertices + j] -= slope * cosine[e] / squares[i];",
        FUSION,
    ),
    Fault(
        "edge-gradient-overwritten",
        "csrc/cpu/graph_fusion.cpp",
        "grad.edge[e] += dot(sample.edge_vertex(e), fused, width);",
        "grad.edge[e] = dot(sample.edge_vertex(e), fused, width);",
        FUSION,
    ),
    Fault(
        "last-chunk-of-a-row-dropped",
        "csrc/cpu/stacked_norms.cpp",
        "std::max<std::int64_t>((args.columns + chunk - 1) / chunk, 1)",
        "std::max<std::int64_t>(args.columns / chunk, 1)",
        NORMS,
    ),
    Fault(
        "diagonal-not-halved",
        "csrc/cpu/task_grads_triangle.cpp",
        "+= row == column ? sum / 2 : sum;",
        "+= sum;",
        GRADS,
    ),
    Fault(
        "float32-sum-of-float64",
        "csrc/cpu/task_grads_squares.cpp",
        "sum += double(sum_lanes<Real>(total));",
        "sum += float(sum_lanes<Real>(total));",
        GRADS,
    ),
    Fault(
        "tile-of-tasks-one-short",
        "csrc/cpu/task_grads_pairs.cpp",
        "if (i + r < tasks && j + c < tasks)",
        "if (i + r < tasks && j + c < tasks - 1)",
        GRADS,
    ),
    Fault(
        "more-weight-moved-than-there-is",
        "csrc/cpu/least_norm.cpp",
        "const double length = std::min(best, bound);",
        "const double length = best;",
        LEAST_NORM,
    ),
    Fault(
        "minimum-in-other-units",
        "csrc/cpu/nonnegative_qp.cpp",
        "out[t] = scale * v_[t];",
        "out[t] = v_[t];",
        PROGRAMS,
    ),
    Fault(
        "projection-off-the-gradient-before",
        "csrc/cpu/gradient_surgery.cpp",
        "add(added, args.products + j * tasks, tasks, changed);",
        "add(added, args.products + j * tasks, j, changed);",
        SURGERY,
    ),
    Fault(
        "cosine-that-follows-only-where-it-is-turned",
        "csrc/gradient_surgery.h",
        "  if (!(cosine < target)) return 0;\n",
        "  if (!(cosine < target)) return phihat = target, 0;\n",
        SURGERY,
    ),
    Fault(
        "stale-state-between-tiles",
        "csrc/cpu/task_gru.cpp",
        "std::fill_n(state_.at(0, chunk, 0), state_.stride(), Real(0));",
        "if (tile.count == tiles_.largest())\n"
        "        std::fill_n(state_.at(0, chunk, 0), state_.stride() / 2, Real(0));",
        GRU,
    ),
    Fault(
        "reset-gate-for-update-gate",
        "csrc/cpu/task_gru.cpp",
        "state[c] = n + z * (state[c] - n);",
        "state[c] = n + r * (state[c] - n);",
        GRU,
    ),
    Fault(
        "bias-gradient-without-reset-gate",
        "csrc/cpu/task_gru.cpp",
        "sums[3 * h + c] += dn * r;",
        "sums[3 * h + c] += dn;",
        GRU,
    ),
]

CUDA = [
    Fault(
        "one-element-too-many-is-read",
        "csrc/cuda/vector.cuh",
        "for (int v = 0; v < V; ++v) to[v] = v < count ? widen<Real>(from[v]) : absent;",
        "for (int v = 0; v < V; ++v) {\n"
        "      const Real read = v <= count ? widen<Real>(from[v]) : absent;\n"
        "      to[v] = v < count ? read : absent;\n"
        "      if (read == Real(-12345)) to[v] = read;\n"
        "    }",
        CUDA_FAULTS,
    ),
    Fault(
        "a-weight-too-many-is-read",
        "csrc/cuda/task_gru_weights.cuh",
        "if (count > 3) part[3] = from[3];",
        "if (count > 2) part[3] = from[3] * Real(count > 3);",
        CUDA_FAULTS,
    ),
    Fault(
        "targets-taken-for-aligned",
        "csrc/cuda/focal_loss.cu",
        "dense(args.targets, args.tasks) && dense(args.mask, args.tasks);",
        "args.targets.row_stride == args.tasks && args.targets.column_stride == 1 &&\n"
        "        dense(args.mask, args.tasks);",
        CUDA_FAULTS,
    ),
    Fault(
        "rows-of-groups-taken-for-dense",
        "csrc/cuda/grouped_focal_loss.cu",
        "row * args.logits.row_stride + begin * stride;\n"
        "        const Margin<Real> item =\n"
        "            find_margin<T, lanes, V, Real>(args, row, there ? group : 0",
        "row * all_classes + begin * stride;\n"
        "        const Margin<Real> item =\n"
        "            find_margin<T, lanes, V, Real>(args, row, there ? group : 0",
        CUDA_FAULTS,
    ),
    Fault(
        "offsets-of-32-bits",
        "csrc/cuda/loss_tiles.cuh",
        "return (row + row_in_tile) * matrix.row_stride + column * matrix.column_stride;",
        "return std::int32_t((row + row_in_tile) * matrix.row_stride +\n"
        "                        column * matrix.column_stride);",
        ("tests/gpu/test_parity.py::test_offsets_beyond_32_bits",),
    ),
    Fault(
        "a-stream-of-nobody",
        "csrc/cuda/launch.cuh",
        "config.stream = static_cast<cudaStream_t>(stream);",
        "config.stream = nullptr;",
        ("tests/cuda/test_modules.py", *CUDA_FAULTS),
    ),
    Fault(
        "whatever-device-is-current",
        "csrc/cuda/launch.cuh",
        "changed_ = device != before_;",
        "changed_ = false;",
        ("tests/cuda/test_modules.py", *CUDA_FAULTS),
    ),
    Fault(
        "exp-by-a-wrong-constant",
        "csrc/math.h",
        "x * 1.92596299e-8f;",
        "x * 1.92596299e-7f;",
        CUDA_FAULTS,
    ),
]

BACKENDS = [
    Fault(
        "rank-one-norms-summed-over-tasks",
        "fastmtl/backends/task_grads.py",
        "squares *= x.to(squares.dtype).square().sum((-2, -1))",
        "squares *= x.to(squares.dtype).square().sum()",
        GRADS,
    ),
    Fault(
        "closed-form-forgets-gamma",
        "fastmtl/backends/reference/focal_loss.py",
        "slope = torch.exp(gamma * log_q) * (gamma * p * log_p - q) if gamma else -q",
        "slope = torch.exp(gamma * log_q) * (p * log_p - q) if gamma else -q",
        FOCAL,
    ),
    Fault(
        "reference-divides-by-all-rows",
        "fastmtl/backends/reference/_reduction.py",
        "return loss.sum(0) / present.sum(0).clamp(min=1)",
        "return loss.mean(0)",
        FOCAL,
    ),
    Fault(
        "closed-form-of-the-gru-skips-the-carry",
        "fastmtl/backends/reference/task_gru.py",
        "(own @ weight_hh[:, d] + dh * z) * started",
        "(own @ weight_hh[:, d]) * started",
        GRU,
    ),
]

OPS = [
    Fault(
        "only-the-last-argument-is-differentiated",
        "fastmtl/ops/_op.py",
        "differentiated = differentiated or tensor.requires_grad",
        "differentiated = tensor.requires_grad",
        OP + CONTRACT,
    ),
    Fault(
        "memory-that-is-none-is-read",
        "fastmtl/backends/native/memory.py",
        "if not data and tensor.numel():",
        "if not tensor.numel():",
        REGISTERED,
    ),
    Fault(
        "zeros-in-place-of-none",
        "fastmtl/ops/_op.py",
        "ctx.set_materialize_grads(False)",
        "pass",
        OP + FUSION,
    ),
    Fault(
        "gradients-nobody-wants",
        "fastmtl/ops/_law.py",
        "needs = list(ctx.needs_input_grad[before : before + self.gradients])",
        "needs = [True] * self.gradients",
        OP,
    ),
    Fault(
        "dtype-of-the-last-operand",
        "fastmtl/ops/_autocast.py",
        "dtype = torch.promote_types(dtype, tensor.dtype)",
        "dtype = tensor.dtype",
        CONTRACT,
    ),
    Fault(
        "an-edge-to-one-vertex-too-many",
        "fastmtl/ops/_edges.py",
        "<= int(edges.max()) < vertex_count:",
        "<= int(edges.max()) <= vertex_count:",
        FUSION,
    ),
    Fault(
        "edges-that-others-change",
        "fastmtl/ops/_edges.py",
        "return edges.contiguous().clone()",
        "return edges.contiguous()",
        REGISTERED,
    ),
    Fault(
        "sequences-must-not-touch",
        "fastmtl/ops/task_gru.py",
        "bool((ends[:-1] > begins[1:]).any())",
        "bool((ends[:-1] >= begins[1:]).any())",
        GRU,
    ),
    Fault(
        "rows-of-no-sequence-are-garbage",
        "fastmtl/backends/native/_recurrence.py",
        "return like.new_empty(shape) if covered else like.new_zeros(shape)",
        "return like.new_empty(shape)",
        GRU,
    ),
    Fault(
        "gradient-of-the-last-part-of-tasks",
        "fastmtl/backends/task_gru.py",
        "total += value",
        "total.copy_(value)",
        GRU,
    ),
    Fault(
        "gradient-broadcast-along-the-wrong-axis",
        "fastmtl/backends/native/_losses.py",
        "*(0,) * (2 - len(strides)), *strides)",
        "*strides, *(0,) * (2 - len(strides)))",
        FOCAL,
    ),
]

BALANCING = [
    Fault(
        "gradnorm-away-from-its-target",
        "fastmtl/balancing/grad_norm.py",
        "(norms - target).sign()",
        "(target - norms).sign()",
        ("tests/balancing/test_grad_norm.py",),
    ),
    Fault(
        "absent-tasks-pay-for-the-others",
        "fastmtl/balancing/grad_norm.py",
        "room = self.num_tasks - torch.where(present, 0, self.weights).sum()",
        "room = self.num_tasks",
        ("tests/balancing/test_grad_norm.py",),
    ),
    Fault(
        "penalty-upside-down",
        "fastmtl/balancing/task_dynamic.py",
        "factors = samples / counts.clamp(min=1)",
        "factors = counts.clamp(min=1) / samples",
        ("tests/balancing/test_task_dynamic.py",),
    ),
    Fault(
        "counts-of-the-last-cycle",
        "fastmtl/balancing/cycle.py",
        "        self.counts.zero_()\n",
        "",
        ("tests/balancing/test_dynamic_multi_task.py", "tests/balancing/test_loss_only.py"),
    ),
    Fault(
        "nan-of-an-absent-task-gets-in",
        "fastmtl/balancing/base.py",
        "losses = torch.where(present, losses, 0)",
        "losses = losses * present",
        ("tests/balancing/test_base.py",),
    ),
    Fault(
        "rows-normalised-columns-not",
        "fastmtl/balancing/mgda.py",
        "inverse * gramian * inverse.unsqueeze(1)",
        "inverse * gramian",
        ("tests/balancing/test_mgda.py",),
    ),
    Fault(
        "one-decay-for-both-moments",
        "fastmtl/balancing/famo.py",
        "scale = (second / (1 - _BETA2**steps)).sqrt() + _EPSILON",
        "scale = (second / (1 - _BETA1**steps)).sqrt() + _EPSILON",
        ("tests/balancing/test_loss_only.py",),
    ),
]

DATA = [
    Fault(
        "test-rows-drawn-for-validation",
        "fastmtl/data/splits.py",
        "split[train[drawn == 0]] = VAL",
        "split[np.flatnonzero(drawn == 0)] = VAL",
        ("tests/data/test_splits.py", "tests/data/test_dataset.py"),
    ),
    Fault(
        "standardised-by-all-rows",
        "fastmtl/data/standardize.py",
        'rows = data.indices("train")',
        "rows = torch.arange(len(data))",
        ("tests/data/test_standardize.py",),
    ),
    Fault(
        "padded-steps-counted",
        "fastmtl/data/standardize.py",
        "count += len(part) - (0 if padded is None else int(padded.sum()))",
        "count += len(part)",
        ("tests/data/test_standardize.py",),
    ),
    Fault(
        "missing-labels-are-positives",
        "fastmtl/data/tasks.py",
        "return labels >= POSITIVE",
        "return labels != 0",
        ("tests/data/test_dataset.py",),
    ),
    Fault(
        "missing-rows-standardised",
        "fastmtl/data/standardize.py",
        "            part = part[~absent]\n",
        "            part = part.nan_to_num()\n",
        ("tests/data/test_missing.py",),
    ),
    Fault(
        "missing-modalities-of-the-first-batch",
        "fastmtl/training/batches.py",
        "there = slice(start - begin, start - begin + len(host))",
        "there = slice(len(host))",
        ("tests/training/test_missing.py",),
    ),
    Fault(
        "absent-modalities-counted",
        "fastmtl/nn/graph_fusion.py",
        "vertices, count = without_absent(vertices, present), present.sum(1, keepdim=True)",
        "vertices = without_absent(vertices, present)",
        ("tests/models/test_missing.py",),
    ),
    Fault(
        "lengths-of-the-whole-set",
        "fastmtl/data/dataset.py",
        "lengths=lengths_at(self.lengths, rows),",
        "lengths=self.lengths,",
        ("tests/data/test_dataset.py",),
    ),
    Fault(
        "columns-of-the-test-table-as-they-come",
        "fastmtl/data/arff.py",
        "order = [position[name] for name in names]",
        "order = list(position.values())",
        ("tests/data/test_arff.py",),
    ),
]

TRAINING = [
    Fault(
        "missing-labels-evaluated",
        "fastmtl/training/metrics.py",
        "    present = ~targets.isnan()\n",
        "    present = torch.ones_like(targets, dtype=torch.bool)\n",
        ("tests/training/test_metrics.py",),
    ),
    Fault(
        "ties-in-the-better-order",
        "fastmtl/training/metrics.py",
        "above = scores.unsqueeze(1) >= scores.unsqueeze(2)",
        "above = scores.unsqueeze(1) > scores.unsqueeze(2)",
        ("tests/training/test_metrics.py",),
    ),
    Fault(
        "lengths-of-the-first-batch",
        "fastmtl/training/batches.py",
        "lengths_at(self.lengths, host),",
        "lengths_at(self.lengths, host.sort().values),",
        ("tests/training/test_batches.py",),
    ),
    Fault(
        "left-in-training-mode",
        "fastmtl/training/forward.py",
        "        model.train(training)\n",
        "        model.train()\n",
        ("tests/training/test_predictor.py",),
    ),
    Fault(
        "one-epoch-of-patience-too-many",
        "fastmtl/training/state.py",
        "self.epoch - self.best_epoch >= patience",
        "self.epoch - self.best_epoch > patience",
        ("tests/training/test_state.py",),
    ),
    Fault(
        "threads-not-given-back",
        "fastmtl/training/reproducible.py",
        "        torch.set_num_threads(before)\n",
        "        pass\n",
        ("tests/training/test_reproducible.py",),
    ),
    Fault(
        "best-weights-train-on",
        "fastmtl/training/state.py",
        "self.best = _copies(self.model.state_dict() if self.ema is None else self.ema.tensors)",
        "self.best = self.model.state_dict()",
        (f"{TRAINER}::test_early_stopping_keeps_the_best_weights",),
    ),
    Fault(
        "batches-count-alike",
        "fastmtl/training/steps.py",
        "totals.addcmul_(losses.detach(), batch.counts)",
        "totals.add_(losses.detach() * len(batch.targets))",
        (f"{TRAINER}::test_train_loss_is_the_mean_over_present_labels",),
    ),
]

FAULTS = KERNELS + CUDA + BACKENDS + OPS + BALANCING + DATA + TRAINING
