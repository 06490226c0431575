// The arguments of every kernel, once for all backends: plain pointers and sizes, no Python and no
// torch.
//
// Shapes stand behind the pointers; tensors are contiguous unless they come with strides. Strides
// count elements. `Accumulated` is float64 where the dtype is float64, and float32 otherwise.
// Sizes, indices and dtypes have been checked by the caller. Reductions run in a fixed order that
// does not depend on the number of threads.
#pragma once

#include <cstdint>

namespace fastmtl {

enum class DType : int { f32, f64, bf16, f16, u8, i64, i32 };

// How the elements of a loss are reduced: by task, over everything, or not at all.
enum class Reduction : int { task, sum, mean, none };

// Where and how a kernel runs.
struct Execution {
  int threads;      // CPU: at most so many
  int device;       // CUDA: its index
  void* stream;     // CUDA: the stream of that device that it is launched on
  void* workspace;  // CUDA: as many bytes as its `..._workspace` asks for; null where that is 0
};

struct Matrix {
  const void* data;  // null: absent
  DType dtype;
  std::int64_t row_stride, column_stride;
};

struct Integers {
  const std::int64_t* data;
  std::int64_t count;
};

// A number of every task.
struct PerTask {
  const void* values;  // (T,) Accumulated; null: the same for all
  double same;
};

struct FocalLoss : Execution {
  Matrix logits;           // (N, T) float
  Matrix targets;          // (N, T) any dtype; 0, 1 or NaN = missing
  Matrix mask;             // (N, T) u8, 0 = missing; may be absent
  const void* pos_weight;  // (T,) Accumulated; may be null
  std::int64_t rows, tasks;
  double gamma;
  Reduction reduction;
};

struct FocalLossForward : FocalLoss {
  void* loss;   // (T,), () or (N, T) Accumulated
  void* scale;  // (T,) Accumulated: factor of one element in the reduced loss
};

struct FocalLossBackward : FocalLoss {
  Matrix grad_loss;   // (N, T) Accumulated; strides of 0 broadcast a reduced gradient
  const void* scale;  // (T,) Accumulated
  void* grad_logits;  // (N, T) of the dtype of logits
};

struct MultilabelLoss : Execution {
  Matrix logits;   // (N, T) float
  Matrix targets;  // (N, T) any dtype; in [0, 1], or NaN = missing
  Matrix weight;   // (N, T) u8 or float, 0 = missing; may be absent
  PerTask gamma_pos, gamma_neg, pos_weight, neg_weight, shift;
  std::int64_t rows, tasks;
  double clip, poly, smoothing, neg_scale;
  bool detach_focus;
  Reduction reduction;
};

struct MultilabelLossForward : MultilabelLoss {
  void* loss;   // (T,), () or (N, T) Accumulated
  void* scale;  // (T,) Accumulated
};

struct MultilabelLossBackward : MultilabelLoss {
  Matrix grad_loss;   // (N, T) Accumulated, as in FocalLossBackward
  const void* scale;  // (T,) Accumulated
  void* grad_logits;  // (N, T) of the dtype of logits
};

struct GroupedFocalLoss : Execution {
  Matrix logits;         // (N, sum C) float
  Matrix targets;        // (N, G) i64, ignore_index = missing
  Integers group_sizes;  // (G,)
  const void* weight;    // (sum C,) Accumulated; may be null
  std::int64_t rows, ignore_index;
  double gamma;
  Reduction reduction;
};

struct GroupedFocalLossForward : GroupedFocalLoss {
  void* loss;   // (G,), () or (N, G) Accumulated
  void* scale;  // (G,) Accumulated
};

struct GroupedFocalLossBackward : GroupedFocalLoss {
  Matrix grad_loss;   // (N, G) Accumulated, as in FocalLossBackward
  const void* scale;  // (G,) Accumulated
  void* grad_logits;  // (N, sum C) of the dtype of logits
};

// out[r] (+)= sum_c a[r, c] * b[r, c].
struct RowDots : Execution {
  Matrix a;  // (R, C) float, unit column stride
  Matrix b;  // (R, C) of the same dtype, unit column stride; a row stride of 0 repeats one row
  std::int64_t rows, columns;
  bool accumulate;
  double* out;  // (R,): squares of numbers in the range of the dtype may be outside it
};

// out[r, c] = factor[r] * a[r, c].
struct ScaleRows : Execution {
  Matrix a;            // (R, C) float, unit column stride
  const void* factor;  // (R,) Accumulated
  std::int64_t rows, columns;
  void* out;  // (R, C) of the dtype of a
};

// out[n, m] = sum_i inputs[n, i] * inputs[m, i] below the diagonal, half of it there, 0 above, for
// inputs that were divided by a power of two, lest their products be outside the type's range.
struct TaskGradsTriangle : Execution {
  DType dtype;
  const void* inputs;     // (N, I) or (matrices, N, I)
  std::int64_t matrices;  // 1 for (N, I)
  std::int64_t samples, features;
  void* scale;  // (matrices,) Accumulated: the power of two, mostly 1
  void* out;    // (matrices, N, N) Accumulated
};

// out[t] = 2 scale^2 * sum_n sum_(m <= n) weights[n, m] * sum_o grads[t, n, o] * grads[t, m, o].
struct TaskGradsSquares : Execution {
  DType dtype;
  const void* grads;      // (T, N, O)
  const void* weights;    // (matrices, N, N) Accumulated; 0 above the diagonal
  const void* scale;      // (matrices,) Accumulated
  std::int64_t matrices;  // 1 where the tasks share it, or T
  std::int64_t tasks, samples, outputs;
  double* out;  // (T,)
};

// out[i, j] = sum_n sum_(m <= n) weights[n, m] * sum_o grads[i, n, o] * grads[j, m, o], for
// gradients multiplied by the scale.
struct TaskGradsPairs : Execution {
  DType dtype;
  const void* grads;    // (T, N, O)
  const void* weights;  // (N, N) Accumulated; 0 above the diagonal
  const void* scale;    // (1,) Accumulated
  std::int64_t tasks, samples, outputs;
  void* out;  // (T, T) Accumulated
};

// The c >= 0 with sum 1 that makes c^T gramian c least, by at most so many iterations; 0 for tasks
// whose diagonal entry is 0, NaN for all where an entry is not finite.
struct LeastNormWeights : Execution {
  DType dtype;          // f32 or f64
  const void* gramian;  // (T, T)
  std::int64_t tasks, iterations;
  void* out;  // (T,)
};

// The v >= 0 that makes v^T matrix v / 2 + linear[b]^T v least, of a positive definite matrix with
// a diagonal of 1.
struct NonnegativeQP : Execution {
  const double* matrix;  // (T, T)
  const double* linear;  // (B, T)
  std::int64_t tasks, problems;
  double* out;  // (B, T)
};

// Row i the coefficients of gradient i after it has visited the others in the order of its row and
// taken out of it what points against them. Visits of itself, of gradients whose square is 0 and of
// what is no task are left out.
struct GradientSurgery : Execution {
  const double* products;     // (T, T), those of the gradients
  const std::int64_t* order;  // (T, T)
  std::int64_t tasks;
  double* coefficients;  // (T, T)
};

// The same, turned where their cosine is below phihat. What is left of a gradient is 0 where its
// square is at most `rounding` of what it was.
struct GradientVaccine : GradientSurgery {
  double* phihat;  // (T, T), in and out
  double beta, rounding;
};

struct GraphFusion : Execution {
  DType dtype;
  const void* vertices;       // (B, P, D)
  const void* importance;     // (B, P)
  const std::int64_t* edges;  // (E, 2)
  const void* edge_vertices;  // (B, E, D'); null: edge weights alone
  std::int64_t batch, vertex_count, features, edge_count, edge_features;
  double theta;
};

// stats (B, E + 2P) Accumulated: the cosine of every edge, then the maximum and the sum of squared
// exponentials of every vertex.
struct GraphFusionForward : GraphFusion {
  void* weights;  // (B, E)
  void* fused;    // (B, D'); null: edge weights alone
  void* stats;    // (B, E + 2P)
};

struct GraphFusionBackward : GraphFusion {
  const void* stats;         // (B, E + 2P)
  const void* grad_weights;  // (B, E); may be null
  const void* grad_fused;    // (B, D'); null: edge weights alone
  void* grad_vertices;       // (B, P, D)
  void* grad_importance;     // (B, P)
  void* grad_edge_vertices;  // (B, E, D'); null: edge weights alone
};

// The recurrence of one layer of GRUs. The time steps of sequence b are the rows
// starts[b] ... starts[b] + lengths[b] - 1 of R; rows of no sequence are neither read nor written.
// Element (t, r, d, i) of `gates` lies at t * task_stride + r * row_stride + d * 3h + i. What is
// not said to be Accumulated is of `dtype`; states are carried from step to step as Accumulated.
struct TaskGRU : Execution {
  DType dtype;
  const void* weight_hh;        // (T, dirs, 3h, h) Accumulated, gates in the order r, z, n
  const std::int64_t* starts;   // (B,)
  const std::int64_t* lengths;  // (B,), at least 1
  std::int64_t tasks, directions, batch, rows, hidden;
  std::int64_t gates_task_stride, gates_row_stride;
};

struct TaskGRUForward : TaskGRU {
  const void* bias_ih;  // (T, dirs, 3h) Accumulated
  const void* bias_hh;  // (T, dirs, 3h) Accumulated
  void* gates;          // (T, R, dirs, 3h) strided: products W_ih x; overwritten by r, z, n
  void* hidden_n;       // (T, dirs, R, h): W_hn h + b_hn; null: it and the gates are not kept
  void* output;         // (T, R, dirs * h)
};

struct TaskGRUBackward : TaskGRU {
  const void* gates;        // (T, R, dirs, 3h) strided
  const void* hidden_n;     // (T, dirs, R, h)
  const void* output;       // (T, R, dirs * h)
  const void* grad_output;  // (T, R, dirs * h)
  void* grad_gates;         // (T, R, dirs, 3h) strided
  void* grad_recurrent;     // (T, dirs, R, 3h) of W_hh h + b_hh, in the row whose state h is; the
                            // row of a sequence's last state is 0
  void* grad_bias;          // (T, dirs, 4h) Accumulated: of r, z, n of bias_ih, then n of bias_hh
};

// The gates of one time step, for the `running` longest sequences; the sequences come longest
// first. Whoever calls it multiplies by weight_hh, which is not read, between two steps. What goes
// from step to step is Accumulated.
struct TaskGRUForwardStep : TaskGRUForward {
  std::int64_t step, running;
  const void* products;  // (T, dirs, running, 3h): W_hh h; not read at step 0
  void* states;          // (T, dirs, B, h), not read at step 0
};

// From the last step to the first.
struct TaskGRUBackwardStep : TaskGRUBackward {  // grad_bias is not written
  std::int64_t step, running;
  void* grads;  // (T, dirs, running, 3h) of W_hh h + b_hh
  void* carry;  // (T, dirs, B, h): becomes the gradient of the states before, but for W_hh h's
  void* sums;   // (T, dirs, B, 4h): after step 0, the parts of grad_bias
};

// The kernels of one backend, as kernels.def lists them; null or 0 where the backend has none.
struct Kernels {
  const char* device;         // "cpu" or "cuda"
  const char* isa;            // of CUDA kernels what compiled them, and for which architectures
  const char* (*unusable)();  // why they do not run on the current device, or null
#define KERNEL(name, Arguments) void (*name)(const Arguments&);
#define CUDA_QUERY(Result, name, parameters) Result(*name) parameters;
#define CUDA_LIMIT(name) std::int64_t name;
#include "kernels.def"
};

// The kernels in use: the best ones for this machine, until use_isa chose others.
const Kernels& kernels();

// Chooses the kernels of an instruction set by name; false where the machine does not have it.
bool use_isa(const char* name);

}  // namespace fastmtl
