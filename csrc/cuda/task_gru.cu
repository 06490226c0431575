// The recurrence of GRUs, all tasks and directions in one launch for all time steps.
//
// A block takes a (task, direction) and a tile of up to four of its sequences through time, with
// one barrier a step. It reads its recurrent weights once and keeps them: every thread has a fixed
// part, the most of it in registers, the rest in shared memory, and what fits in neither is read
// again at every step. Neighbouring lanes split the sum of a product, so that each weight serves
// all sequences of the tile and each state read from shared memory several units; exchanges
// between them leave each lane with all three gates of a unit, which it takes from there alone.
//
// A step multiplies 3 h^2 weights by each sequence's state: with S sequences a block, 3 h^2 S / 128
// cycles of a multiprocessor's float32 units. Its reads of shared memory and exchanges, 32 elements
// a cycle, take about as long beside them: a lane reads 16 states forward, 24 gradients backward,
// for each sequence and for every 192 weights, which give it 192 products. For h = 128 and S = 3
// that is 1152 cycles, 0.7 us at 1.7 GHz, and the latency of exchanges, gates and barrier comes to
// it. The paper's layer (B 20, L 40, T 7, 2 directions) makes 98 such blocks, which an H100's 132
// multiprocessors run at once: 27 us and 40 times that latency in either direction of time. Its
// 46 MB forward and 69 MB backward take 15 and 23 us at 3 TB/s, meanwhile.
#include <type_traits>

#include "cuda/reduce.cuh"
#include "cuda/task_gru.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// How the lanes of a warp share the products of a step: `lanes` neighbours have `units` outputs
// together, and 32 / lanes such teams the 16 outputs of a warp. A lane sums over four consecutive
// inputs of every 4 * lanes.
template <int lanes_, int units_, int gates_>
struct Shape {
  static constexpr int lanes = lanes_, units = units_, gates = gates_;
  static constexpr int span = 4 * lanes;             // inputs of a chunk
  static constexpr int weights = 4 * units * gates;  // of a thread in a chunk
  static constexpr int warp_units = warp_size / lanes * units;
  // Chunks that a thread may hold in registers beside the sums of four sequences.
  static constexpr int held[3] = {48 / weights, 96 / weights, 160 / weights};
};
using ForwardShape = Shape<8, 4, 3>;    // from h states to the gates of four units
using BackwardShape = Shape<16, 8, 1>;  // from 3h gradients of gates to the states of eight
static_assert(ForwardShape::warp_units == BackwardShape::warp_units, "one unit and half a lane");
constexpr int warp_units = ForwardShape::warp_units;

// How a block's weights are kept. A chunk's are `weights` a thread.
struct Layout {
  std::int32_t pairs;
  std::int32_t rows_bytes;         // of the two halves of a tile's rows
  std::int32_t width;              // of a tile's rows in shared memory: whole chunks
  std::int32_t chunks, in_shared;  // chunks of all inputs, and those of them in shared memory
  bool wide;                       // weights may be read in 16-byte accesses
};

// A thread's place: its team's outputs, its share of their inputs, and the unit that it finishes.
template <class Shape>
struct Place {
  int lane;   // in its team
  int first;  // output of the team
  int own;    // unit
  int half;   // of the sequences

  __device__ Place() {
    const int in_warp = threadIdx.x % warp_size;
    lane = in_warp % Shape::lanes;
    first = (threadIdx.x / warp_size) * warp_units + in_warp / Shape::lanes * Shape::units;
    own = first + lane % Shape::units;
    half = lane / Shape::units;
  }
};

// Sequences of a tile that one lane finishes.
template <int S>
constexpr int lane_sequences = (S + 1) / 2;

// Adds up a team's sums: lane l gets those of unit l % units, for the first half of the sequences
// where l < units and for the others elsewhere. Each exchange halves what is left to sum.
template <class Shape, int S, class Real>
__device__ void add_lanes(Real (&sums)[Shape::units][S], Real (&own)[lane_sequences<S>]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int half = Shape::units / 2; half > 0; half /= 2) {
    const bool upper = lane & half;
#pragma unroll
    for (int k = 0; k < half; ++k)
#pragma unroll
      for (int q = 0; q < S; ++q) {
        const Real low = sums[k][q], high = sums[k + half][q];
        sums[k][q] = (upper ? high : low) + __shfl_xor_sync(all_lanes, upper ? low : high, half);
      }
  }
  constexpr int first = lane_sequences<S>;
  const bool upper = lane & Shape::units;
#pragma unroll
  for (int i = 0; i < first; ++i) {
    const Real low = sums[0][i], high = first + i < S ? sums[0][(first + i) % S] : Real(0);
    own[i] = (upper ? high : low) + __shfl_xor_sync(all_lanes, upper ? low : high, Shape::units);
  }
}

// The weights of a thread, chunk by chunk: the first `held` in registers.
template <class Real, int size, int held>
class Weights {
 public:
  // read(chunk, weights) reads a chunk's from global memory.
  template <class Read>
  __device__ Weights(const Layout& layout, Real* shared, const Read& read)
      : layout_(layout), shared_(shared) {
#pragma unroll
    for (int c = 0; c < held; ++c) read(c, held_[c]);
#pragma unroll 1
    for (int c = 0; c < layout.in_shared; ++c) {
      Real weights[size];
      read(held + c, weights);
#pragma unroll
      for (int i = 0; i < size / V; ++i) {
        Pack<Real, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) pack.element[v] = weights[i * V + v];
        pack.write(at(c, i));
      }
    }
  }

  // Calls use(chunk, weights) for all chunks.
  template <class Read, class Use>
  __device__ void each(const Read& read, const Use& use) const {
#pragma unroll
    for (int c = 0; c < held; ++c) use(c, held_[c]);
#pragma unroll 1
    for (int c = 0; c < layout_.in_shared; ++c) {
      Real weights[size];
#pragma unroll
      for (int i = 0; i < size / V; ++i) {
        const Pack<Real, V> pack = Pack<Real, V>::read(at(c, i));
#pragma unroll
        for (int v = 0; v < V; ++v) weights[i * V + v] = pack.element[v];
      }
      use(held + c, weights);
    }
#pragma unroll 1
    for (int c = held + layout_.in_shared; c < layout_.chunks; ++c) {
      Real weights[size];
      read(c, weights);
      use(c, weights);
    }
  }

 private:
  static constexpr int V = widest<Real>;

  // Only its own thread reads what lies there; neighbours' lie side by side.
  __device__ Real* at(int c, int i) const {
    return shared_ + ((c * (size / V) + i) * int(blockDim.x) + int(threadIdx.x)) * V;
  }

  const Layout& layout_;
  Real* shared_;
  Real held_[held ? held : 1][size];
};

// Four consecutive weights, those beyond the first `count` 0.
template <class Real>
__device__ void read_four(const Real* from, std::int64_t count, bool wide, Real* to) {
  Real part[4] = {};
  if (wide) {
    if (count > 0) load(from, 4, Real(0), part);
  } else {
    load<4>(from, count < 3 ? count : 3, Real(0), part);
    if (count > 3) part[3] = from[3];
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) to[e] = part[e];
}

// The tile of a block, and those of its sequences that one lane finishes.
template <int S>
struct Tile {
  static constexpr int mine = lane_sequences<S>;
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
      read_four(weight + (gate * h + unit) * h + k, unit < h ? h - k : 0, layout.wide, to + 4 * i);
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
        add_lanes<Shape, S>(sums[gate], own);
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
      read_four(weight + j * h + unit, j < 3 * h ? h - unit : 0, layout.wide, to + 4 * i);
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
    add_lanes<Shape, S>(products, own);
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

// Threads of a block: its warps have 16 units each.
int threads_for(std::int64_t hidden) { return int(divide_up(hidden, warp_units)) * warp_size; }

constexpr int few_threads = 256, most_threads = 384, most_tile = 4;

// Sequences of a block, so that the launch ends soonest: a wave of blocks takes about the time of
// the sequences of one, and of one more for what does not depend on their number.
int tile_for(DType dtype, std::int64_t pairs, std::int64_t batch, std::int64_t hidden) {
  if (dtype == DType::f64) return 2;
  const std::int64_t at_once = multiprocessors() * std::max(few_threads / threads_for(hidden), 1);
  int best = 0;
  std::int64_t least = 0;
  for (int tile = 1; tile <= most_tile; ++tile) {
    const std::int64_t waves = divide_up(pairs * divide_up(batch, tile), at_once);
    const std::int64_t cost = waves * (tile + 1);
    if (best && cost > least) continue;
    best = tile;
    least = cost;
  }
  return best;
}

template <class Shape>
std::int64_t chunks_for(std::int64_t hidden) {
  return divide_up(Shape::gates == 3 ? hidden : 3 * hidden, Shape::span);
}

// Bytes of a chunk of weights.
template <class Shape>
std::int64_t chunk_bytes(std::int64_t element, std::int64_t hidden) {
  return element * Shape::weights * threads_for(hidden);
}

template <class Shape>
Layout layout_for(std::int64_t element, std::int64_t pairs, std::int64_t hidden, int tile,
                  int held) {
  Layout layout = {};
  layout.pairs = int(pairs);
  layout.chunks = int(std::max<std::int64_t>(chunks_for<Shape>(hidden), held));
  layout.width = layout.chunks * Shape::span;
  layout.rows_bytes = int(2 * tile * layout.width * element);
  const std::int64_t left = most_shared_bytes() - layout.rows_bytes;
  layout.in_shared =
      int(std::min<std::int64_t>(layout.chunks - held, left / chunk_bytes<Shape>(element, hidden)));
  return layout;
}

// Chunks that a thread holds in registers.
template <class Shape>
int held_for(DType dtype, std::int64_t hidden) {
  if (dtype == DType::f64) return 0;
  int held = Shape::held[0];
  if (threads_for(hidden) > few_threads) return held;
  for (int i = 1; i < 3 && held < chunks_for<Shape>(hidden); ++i) held = Shape::held[i];
  return held;
}

// Whether a block can do with its weights: what it has to read again at every step must take it no
// longer than the launches of a step would take that has its own.
template <class Shape>
bool holds_weights(DType dtype, std::int64_t hidden) {
  constexpr std::int64_t most_read_again = 192 << 10;
  if (threads_for(hidden) > most_threads) return false;
  const std::int64_t element = dtype == DType::f64 ? sizeof(double) : sizeof(float);
  const int held = held_for<Shape>(dtype, hidden);
  const Layout layout = layout_for<Shape>(element, 1, hidden, most_tile, held);
  const std::int64_t again = layout.chunks - held - layout.in_shared;
  return layout.in_shared >= 0 && again * chunk_bytes<Shape>(element, hidden) <= most_read_again;
}

template <int value>
using Constant = std::integral_constant<int, value>;

// Calls body(Real, tile, held, threads): the sequences of a block, the chunks that it holds in
// registers, and the most threads that leave enough of them.
template <class Shape, class Body>
void with_sizes(const TaskGRU& args, const Body& body) {
  const int held = held_for<Shape>(args.dtype, args.hidden);
  const auto with_held = [&](auto tile) {
    using Few = Constant<few_threads>;
    if (threads_for(args.hidden) > few_threads)
      body(float{}, tile, Constant<Shape::held[0]>{}, Constant<most_threads>{});
    else if (held == Shape::held[0])
      body(float{}, tile, Constant<Shape::held[0]>{}, Few{});
    else if (held == Shape::held[1])
      body(float{}, tile, Constant<Shape::held[1]>{}, Few{});
    else
      body(float{}, tile, Constant<Shape::held[2]>{}, Few{});
  };
  if (args.dtype == DType::f64)
    return body(double{}, Constant<2>{}, Constant<0>{}, Constant<most_threads>{});
  switch (tile_for(args.dtype, args.tasks * args.directions, args.batch, args.hidden)) {
    case 1:
      return with_held(Constant<1>{});
    case 2:
      return with_held(Constant<2>{});
    case 3:
      return with_held(Constant<3>{});
    default:
      return with_held(Constant<most_tile>{});
  }
}

// Calls run(part, grid, layout, shared bytes) for all sequences, `tile` of which a block takes.
template <class Shape, class Run>
void in_launches(const TaskGRU& args, std::int64_t element, int tile, int held, const Run& run) {
  Layout layout = layout_for<Shape>(element, args.tasks * args.directions, args.hidden, tile, held);
  layout.wide = args.hidden % 4 == 0 && aligned(args.weight_hh);
  const std::int64_t bytes =
      layout.rows_bytes + layout.in_shared * chunk_bytes<Shape>(element, args.hidden);
  for (const Sequences& part : in_parts(args, most_sequences / tile * tile)) {
    run(part, dim3(unsigned(layout.pairs * divide_up(part.count, tile))), layout, bytes);
  }
}

}  // namespace

void task_gru_forward(const TaskGRUForward& args) {
  const DeviceGuard guard(args.device);
  if (!args.tasks) return;
  with_sizes<ForwardShape>(args, [&](auto real, auto tile, auto held, auto threads) {
    using Real = decltype(real);
    constexpr int S = decltype(tile)::value;
    const auto kernel = forward<Real, S, decltype(held)::value, decltype(threads)::value>;
    in_launches<ForwardShape>(
        args, sizeof(Real), S, held,
        [&](const Sequences& part, dim3 grid, const Layout& layout, std::int64_t bytes) {
          launch("task_gru_forward", kernel, grid, threads_for(args.hidden), bytes, args.stream,
                 args, part, layout);
        });
  });
}

void task_gru_backward(const TaskGRUBackward& args) {
  const DeviceGuard guard(args.device);
  if (!args.tasks) return;
  const char* name = "task_gru_backward";
  with_sizes<BackwardShape>(args, [&](auto real, auto tile, auto held, auto threads) {
    using Real = decltype(real);
    constexpr int S = decltype(tile)::value;
    const auto kernel = backward<Real, S, decltype(held)::value, decltype(threads)::value>;
    const std::int64_t count = args.tasks * args.directions * 4 * args.hidden;
    const std::int64_t tiles = divide_up(args.batch, S);
    if (tiles > 1 && !args.workspace)
      throw std::logic_error("fastmtl: task_gru_backward without its workspace");
    Real* out = static_cast<Real*>(args.grad_bias);
    Real* sums = tiles > 1 ? static_cast<Real*>(args.workspace) : out;
    Real* of_part = sums;
    in_launches<BackwardShape>(
        args, sizeof(Real), S, held,
        [&](const Sequences& part, dim3 grid, const Layout& layout, std::int64_t bytes) {
          launch(name, kernel, grid, threads_for(args.hidden), bytes, args.stream, args, part,
                 layout, of_part);
          of_part += divide_up(part.count, S) * count;
        });
    if (tiles != 1)
      launch(name, add_tiles<Real>, dim3(unsigned(divide_up(count, finish_threads))),
             finish_threads, 0, args.stream, sums, tiles, count, out);
  });
}

std::int64_t task_gru_workspace(int device, int dtype, std::int64_t pairs, std::int64_t batch,
                                std::int64_t hidden) {
  const DeviceGuard guard(device);
  if (!pairs) return 0;
  const std::int64_t tiles = divide_up(batch, tile_for(DType(dtype), pairs, batch, hidden));
  const std::int64_t element = DType(dtype) == DType::f64 ? sizeof(double) : sizeof(float);
  return tiles > 1 ? tiles * pairs * 4 * hidden * element : 0;
}

bool task_gru_in_one_launch(int device, int dtype, std::int64_t hidden) {
  const DeviceGuard guard(device);
  return holds_weights<ForwardShape>(DType(dtype), hidden) &&
         holds_weights<BackwardShape>(DType(dtype), hidden);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
