// The gates of one time step of GRUs whose recurrent products are made outside, one after another:
// for states that are too large for task_gru.cu. A thread has one unit of one sequence. What a step
// moves, 9 values a unit forward and 17 backward, takes less time than the launch up to some 10^5
// units, and mostly stays in the cache between the two products.
#include "cuda/task_gru.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr int step_threads = 256;

// The units of a part of the sequences in all pairs, a thread each.
struct Units {
  std::int64_t pairs, count, hidden;
  std::int64_t begin;  // of the part's sequences among all

  std::int64_t size() const { return pairs * count * hidden; }
  dim3 grid() const { return dim3(unsigned(divide_up(size(), step_threads))); }
};

struct Unit {
  bool there;
  std::int32_t unit, sequence, pair;

  __device__ explicit Unit(const Units& units) {
    const std::int64_t i = std::int64_t(blockIdx.x) * step_threads + threadIdx.x;
    there = i < units.pairs * units.count * units.hidden;
    unit = std::int32_t(i % units.hidden);
    sequence = std::int32_t(i / units.hidden % units.count);
    pair = std::int32_t(i / units.hidden / units.count);
  }
  // In an array (T * dirs, rows, width * h), of one row a sequence.
  __device__ std::int64_t in(const Units& units, std::int64_t rows, int width) const {
    return (pair * rows + units.begin + sequence) * width * units.hidden + unit;
  }
};

template <class Real>
__global__ void __launch_bounds__(step_threads)
    forward_gates(const __grid_constant__ TaskGRUForwardStep args,
                  const __grid_constant__ Sequences sequences, Units units) {
  const Unit at(units);
  if (!at.there) return;
  const Pair pair(args, at.pair, at.unit);
  const std::int32_t s = std::int32_t(args.step);
  const std::int32_t row = pair.row(sequences.start[at.sequence], sequences.length[at.sequence], s);
  InputProducts<Real> input;
  input.read(args, pair, row);
  Real product[3] = {}, state = 0;
  Real* states = static_cast<Real*>(args.states) + at.in(units, args.batch, 1);
  if (s) {
    const Real* from = static_cast<const Real*>(args.products) + at.in(units, args.running, 3);
    for (int gate = 0; gate < 3; ++gate) product[gate] = from[gate * args.hidden];
    state = *states;
  }
  *states = forward_step(args, pair, row, input, GateBias<Real>(args, pair), product, state);
}

template <class Real>
__global__ void __launch_bounds__(step_threads)
    backward_gates(const __grid_constant__ TaskGRUBackwardStep args,
                   const __grid_constant__ Sequences sequences, Units units) {
  const Unit at(units);
  if (!at.there) return;
  const Pair pair(args, at.pair, at.unit);
  const std::int32_t s = std::int32_t(args.step), length = sequences.length[at.sequence];
  const std::int32_t row = pair.row(sequences.start[at.sequence], length, s);
  const bool last = s == length - 1;
  SavedStep<Real> step;
  step.read(args, pair, row, s);
  Real* carries = static_cast<Real*>(args.carry) + at.in(units, args.batch, 1);
  Real carry = last ? Real(0) : *carries;
  const GateGrads<Real> grad = backward_step(args, pair, row, s, last, step, carry);
  *carries = carry;
  const std::int64_t h = args.hidden;
  Real* to = static_cast<Real*>(args.grads) + at.in(units, args.running, 3);
  to[0] = grad.r;
  to[h] = grad.z;
  to[2 * h] = grad.hidden;
  Real* sums = static_cast<Real*>(args.sums) + at.in(units, args.batch, 4);
  const Real grads[4] = {grad.r, grad.z, grad.n, grad.hidden};
  for (int i = 0; i < 4; ++i) sums[i * h] = (last ? Real(0) : sums[i * h]) + grads[i];
}

// Launches a kernel for the sequences that run at a step.
template <class Args>
void launch_step(const char* name, void (*kernel)(Args, Sequences, Units), const Args& args) {
  std::int64_t begin = 0;
  for (const Sequences& part : in_parts(args, most_sequences)) {
    const Units units = {args.tasks * args.directions,
                         std::min<std::int64_t>(part.count, args.running - begin), args.hidden,
                         begin};
    if (units.size() > 0)
      launch(name, kernel, units.grid(), step_threads, 0, args.stream, args, part, units);
    begin += part.count;
  }
}

}  // namespace

void task_gru_forward_step(const TaskGRUForwardStep& args) {
  const DeviceGuard guard(args.device);
  const bool is_double = args.dtype == DType::f64;
  launch_step("task_gru_forward_step", is_double ? forward_gates<double> : forward_gates<float>,
              args);
}

void task_gru_backward_step(const TaskGRUBackwardStep& args) {
  const DeviceGuard guard(args.device);
  const bool is_double = args.dtype == DType::f64;
  launch_step("task_gru_backward_step", is_double ? backward_gates<double> : backward_gates<float>,
              args);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
