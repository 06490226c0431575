// The recurrence of GRUs, all tasks and directions in one launch for all time steps.
//
// A block takes a (task, direction) and a tile of up to four of its sequences through time, with
// one barrier a step. It reads its recurrent weights once and keeps them: every thread has a fixed
// part, the most of it in registers, the rest in shared memory, and what fits in neither is read
// again at every step. Neighbouring lanes split the sum of a product, so that each weight serves
// all sequences of the tile and each state read from shared memory several units; exchanges
// between them leave each lane with all three gates of a unit, which it takes from there alone.
//
// A step multiplies 3 h^2 weights by each sequence's state; a lane reads 16 states forward, 24
// gradients backward, for each sequence and for every 192 weights, which give it 192 products. The
// paper's layer (B 20, L 40, T 7, h 128, 2 directions) makes 98 blocks of three sequences, which an
// H100's 132 multiprocessors run at once. docs/gpu.md counts the cycles.
#include "cuda/reduce.cuh"
#include "cuda/task_gru.cuh"
#include "cuda/task_gru_plan.cuh"
#include "cuda/task_gru_weights.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

using gru::BackwardShape, gru::ForwardShape, gru::Layout, gru::Place, gru::Weights;

// The tile of a block, and those of its sequences that one lane finishes.
template <int S>
struct Tile {
  static constexpr int mine = gru::lane_sequences<S>;
  std::int32_t steps;
  int first;                               // the lane's first sequence, in the tile
  std::int32_t start[mine], length[mine];  // length 0: none

  __device__ Tile(const Sequences& sequences, int tile, int half, bool has_unit) {
    const int begin = tile * S;
    steps = sequences.length[begin];
    first = half * mine;
#pragma unroll
    for (int i = 0; i < mine; ++i) {
      const int b = begin + first + i;
      const bool there = has_unit && first + i < S && b < sequences.count;
      start[i] = there ? sequences.start[b] : 0;
      length[i] = there ? sequences.length[b] : 0;
    }
  }
};

// Zeros for the two halves of the tile's rows, which take turns from step to step.
template <class Real>
__device__ void clear(Real* rows, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) rows[i] = 0;
  __syncthreads();
}

template <class Real, int S, int held, int threads>
__global__ void __launch_bounds__(threads, 1)
    forward(const __grid_constant__ TaskGRUForward args,
            const __grid_constant__ Sequences sequences, const __grid_constant__ Layout layout) {
  using Shape = ForwardShape;
  const Place<Shape> place;
  const Pair pair(args, blockIdx.x % layout.pairs, place.own);
  const std::int64_t h = args.hidden;
  const Tile<S> tile(sequences, blockIdx.x / layout.pairs, place.half, place.own < h);
  Real* states = reinterpret_cast<Real*>(shared_memory);  // (2, S, width)
  clear(states, 2 * S * layout.width);

  const Real* weight = static_cast<const Real*>(args.weight_hh) + pair.index * 3 * h * h;
  const auto read = [&](int chunk, Real(&to)[Shape::weights]) {
    const std::int64_t k = chunk * Shape::span + 4 * place.lane;
#pragma unroll
    for (int i = 0; i < Shape::weights / 4; ++i) {
      const std::int64_t gate = i / Shape::units, unit = place.first + i % Shape::units;
      gru::read_four(weight + (gate * h + unit) * h + k, unit < h ? h - k : 0, layout.wide,
                     to + 4 * i);
    }
  };
  const Weights<Real, Shape::weights, held> weights(layout, states + 2 * S * layout.width, read);
  const GateBias<Real> bias(args, pair);

  Real state[tile.mine] = {};
  for (std::int32_t s = 0; s < tile.steps; ++s) {
    // Requested early, to arrive during the product.
    InputProducts<Real> input[tile.mine] = {};
#pragma unroll
    for (int i = 0; i < tile.mine; ++i)
      if (s < tile.length[i]) input[i].read(args, pair, pair.row(tile.start[i], tile.length[i], s));

    Real product[tile.mine][3] = {};
    if (s) {
      const Real* from = states + s % 2 * S * layout.width + 4 * place.lane;
      Real sums[3][Shape::units][S] = {};
      weights.each(read, [&](int chunk, const Real(&w)[Shape::weights]) {
        Pack<Real, 4> k[S];
#pragma unroll
        for (int q = 0; q < S; ++q)
          k[q] = Pack<Real, 4>::read(from + q * layout.width + chunk * Shape::span);
#pragma unroll
        for (int i = 0; i < Shape::weights / 4; ++i)
#pragma unroll
          for (int e = 0; e < 4; ++e)
#pragma unroll
            for (int q = 0; q < S; ++q)
              sums[i / Shape::units][i % Shape::units][q] += w[4 * i + e] * k[q].element[e];
      });
#pragma unroll
      for (int gate = 0; gate < 3; ++gate) {
        Real own[tile.mine];
        gru::add_lanes<Shape, S>(sums[gate], own);
#pragma unroll
        for (int i = 0; i < tile.mine; ++i) product[i][gate] = own[i];
      }
    }

    Real* to = states + (s + 1) % 2 * S * layout.width + place.own;
#pragma unroll
    for (int i = 0; i < tile.mine; ++i) {
      if (s >= tile.length[i]) continue;
      const std::int32_t row = pair.row(tile.start[i], tile.length[i], s);
      state[i] = forward_step(args, pair, row, input[i], bias, product[i], state[i]);
      to[(tile.first + i) * layout.width] = state[i];
    }
    __syncthreads();
  }
}

// sums (tiles, pairs, 4h): each block's of grad_bias.
template <class Real, int S, int held, int threads>
__global__ void __launch_bounds__(threads, 1)
    backward(const __grid_constant__ TaskGRUBackward args,
             const __grid_constant__ Sequences sequences, const __grid_constant__ Layout layout,
             Real* sums_of_tiles) {
  using Shape = BackwardShape;
  const Place<Shape> place;
  const Pair pair(args, blockIdx.x % layout.pairs, place.own);
  const std::int64_t h = args.hidden;
  const Tile<S> tile(sequences, blockIdx.x / layout.pairs, place.half, place.own < h);
  Real* grads = reinterpret_cast<Real*>(shared_memory);  // (2, S, width) of W_hh h + b_hh
  clear(grads, 2 * S * layout.width);

  const Real* weight = static_cast<const Real*>(args.weight_hh) + pair.index * 3 * h * h;
  const auto read = [&](int chunk, Real(&to)[Shape::weights]) {
#pragma unroll
    for (int i = 0; i < Shape::weights / 4; ++i) {
      const std::int64_t j = chunk * Shape::span + 4 * place.lane + i / 2;
      const std::int64_t unit = place.first + i % 2 * 4;
      gru::read_four(weight + j * h + unit, j < 3 * h ? h - unit : 0, layout.wide, to + 4 * i);
    }
  };
  const Weights<Real, Shape::weights, held> weights(layout, grads + 2 * S * layout.width, read);

  Real carry[tile.mine] = {};
  SavedStep<Real> step[tile.mine] = {};
  const auto prefetch = [&](std::int32_t s) {
#pragma unroll
    for (int i = 0; i < tile.mine; ++i)
      if (s < tile.length[i])
        step[i].read(args, pair, pair.row(tile.start[i], tile.length[i], s), s);
  };
  GateGrads<Real> sums;
  prefetch(tile.steps - 1);
  for (std::int32_t s = tile.steps - 1; s >= 0; --s) {
    Real* to = grads + s % 2 * S * layout.width;
#pragma unroll
    for (int i = 0; i < tile.mine; ++i) {
      if (s >= tile.length[i]) continue;
      const GateGrads<Real> grad =
          backward_step(args, pair, pair.row(tile.start[i], tile.length[i], s), s,
                        s == tile.length[i] - 1, step[i], carry[i]);
      Real* of = to + (tile.first + i) * layout.width + place.own;
      of[0] = grad.r;
      of[h] = grad.z;
      of[2 * h] = grad.hidden;
      sums.r += grad.r;
      sums.z += grad.z;
      sums.n += grad.n;
      sums.hidden += grad.hidden;
    }
    __syncthreads();
    if (!s) break;
    prefetch(s - 1);

    const Real* from = to + 4 * place.lane;
    Real products[Shape::units][S] = {};
    weights.each(read, [&](int chunk, const Real(&w)[Shape::weights]) {
      Pack<Real, 4> j[S];
#pragma unroll
      for (int q = 0; q < S; ++q)
        j[q] = Pack<Real, 4>::read(from + q * layout.width + chunk * Shape::span);
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int u = 0; u < Shape::units; ++u)
#pragma unroll
          for (int q = 0; q < S; ++q) products[u][q] += w[Shape::units * e + u] * j[q].element[e];
    });
    Real own[tile.mine];
    gru::add_lanes<Shape, S>(products, own);
#pragma unroll
    for (int i = 0; i < tile.mine; ++i) carry[i] += own[i];
  }

  // The two halves of the sequences.
  const auto both = [](Real sum) { return sum + __shfl_xor_sync(all_lanes, sum, Shape::units); };
  const Real r = both(sums.r), z = both(sums.z), n = both(sums.n), hidden = both(sums.hidden);
  if (place.half || place.own >= h) return;
  Real* out = sums_of_tiles + std::int64_t(blockIdx.x) * 4 * h + place.own;
  out[0] = r;
  out[h] = z;
  out[2 * h] = n;
  out[3 * h] = hidden;
}

constexpr int finish_threads = 256;

// out[i] = sum_t sums[t, i], in order.
template <class Real>
__global__ void __launch_bounds__(finish_threads)
    add_tiles(const Real* sums, std::int64_t tiles, std::int64_t count, Real* out) {
  const std::int64_t i = std::int64_t(blockIdx.x) * finish_threads + threadIdx.x;
  if (i >= count) return;
  Real sum = 0;
#pragma unroll 8
  for (std::int64_t t = 0; t < tiles; ++t) sum += sums[t * count + i];
  out[i] = sum;
}

}  // namespace

void task_gru_forward(const TaskGRUForward& args) {
  const DeviceGuard guard(args.device);
  if (!args.tasks) return;
  gru::with_sizes<ForwardShape>(args, [&](auto real, auto tile, auto held, auto threads) {
    const auto kernel = forward<decltype(real), decltype(tile)::value, decltype(held)::value,
                                decltype(threads)::value>;
    const gru::Plan plan = gru::plan_for<ForwardShape>(args, tile, held);
    for (const Sequences& part : plan.parts(args))
      launch("task_gru_forward", kernel, plan.grid(part), plan.threads, plan.shared_bytes,
             args.stream, args, part, plan.layout);
  });
}

void task_gru_backward(const TaskGRUBackward& args) {
  const DeviceGuard guard(args.device);
  if (!args.tasks) return;
  const char* name = "task_gru_backward";
  gru::with_sizes<BackwardShape>(args, [&](auto real, auto tile, auto held, auto threads) {
    using Real = decltype(real);
    const auto kernel =
        backward<Real, decltype(tile)::value, decltype(held)::value, decltype(threads)::value>;
    const gru::Plan plan = gru::plan_for<BackwardShape>(args, tile, held);
    const std::int64_t count = args.tasks * args.directions * 4 * args.hidden;
    const std::int64_t tiles = divide_up(args.batch, plan.tile);
    if (tiles > 1 && !args.workspace)
      throw std::logic_error("fastmtl: task_gru_backward without its workspace");
    Real* out = static_cast<Real*>(args.grad_bias);
    Real* sums = tiles > 1 ? static_cast<Real*>(args.workspace) : out;
    Real* of_part = sums;
    for (const Sequences& part : plan.parts(args)) {
      launch(name, kernel, plan.grid(part), plan.threads, plan.shared_bytes, args.stream, args,
             part, plan.layout, of_part);
      of_part += plan.tiles(part) * count;
    }
    if (tiles != 1)
      launch(name, add_tiles<Real>, dim3(unsigned(divide_up(count, finish_threads))),
             finish_threads, 0, args.stream, sums, tiles, count, out);
  });
}

std::int64_t task_gru_workspace(int device, int dtype, std::int64_t pairs, std::int64_t batch,
                                std::int64_t hidden) {
  const DeviceGuard guard(device);
  if (!pairs) return 0;
  const std::int64_t tiles = divide_up(batch, gru::tile_for(DType(dtype), pairs, batch, hidden));
  return tiles > 1 ? tiles * pairs * 4 * hidden * gru::element_size(DType(dtype)) : 0;
}

bool task_gru_in_one_launch(int device, int dtype, std::int64_t hidden) {
  const DeviceGuard guard(device);
  return gru::holds_weights<ForwardShape>(DType(dtype), hidden) &&
         gru::holds_weights<BackwardShape>(DType(dtype), hidden);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
