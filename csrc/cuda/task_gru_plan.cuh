// How the recurrence of GRUs is divided into launches, blocks and threads, and where a block keeps
// its weights.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/reduce.cuh"
#include "cuda/task_gru.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace gru {

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

// Threads of a block: its warps have 16 units each.
inline int threads_for(std::int64_t hidden) {
  return int(divide_up(hidden, warp_units)) * warp_size;
}

constexpr int few_threads = 256, most_threads = 384;
constexpr int most_tile = 4, double_tile = 2;

inline std::int64_t element_size(DType dtype) {
  return dtype == DType::f64 ? sizeof(double) : sizeof(float);
}

// Sequences of a block, so that the launch ends soonest: a wave of blocks takes about the time of
// the sequences of one, and of one more for what does not depend on their number.
inline int tile_for(DType dtype, std::int64_t pairs, std::int64_t batch, std::int64_t hidden) {
  if (dtype == DType::f64) return double_tile;
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
  const std::int64_t element = element_size(dtype);
  const int held = held_for<Shape>(dtype, hidden);
  const Layout layout = layout_for<Shape>(element, 1, hidden, most_tile, held);
  const std::int64_t again = layout.chunks - held - layout.in_shared;
  return layout.in_shared >= 0 && again * chunk_bytes<Shape>(element, hidden) <= most_read_again;
}

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
    return body(double{}, Constant<double_tile>{}, Constant<0>{}, Constant<most_threads>{});
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

// What the launches of a call have in common: each takes a part of its sequences.
struct Plan {
  Layout layout;
  int tile;  // sequences of a block
  int threads;
  std::int64_t shared_bytes;

  std::vector<Sequences> parts(const TaskGRU& args) const {
    return in_parts(args, most_sequences / tile * tile);
  }
  std::int64_t tiles(const Sequences& part) const { return divide_up(part.count, tile); }
  dim3 grid(const Sequences& part) const { return dim3(unsigned(layout.pairs * tiles(part))); }
};

template <class Shape>
Plan plan_for(const TaskGRU& args, int tile, int held) {
  const std::int64_t element = element_size(args.dtype), pairs = args.tasks * args.directions;
  Layout layout = layout_for<Shape>(element, pairs, args.hidden, tile, held);
  layout.wide = args.hidden % 4 == 0 && aligned(args.weight_hh);
  return {layout, tile, threads_for(args.hidden),
          layout.rows_bytes + layout.in_shared * chunk_bytes<Shape>(element, args.hidden)};
}

}  // namespace gru
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
