// Who works on a sample of graph fusion, and where its values lie: a team of threads, its shared
// memory, and the edges.
#pragma once

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace graph {

constexpr int block_threads = 128;
constexpr int resident_blocks = 5;  // for which a multiprocessor has registers, none in memory
constexpr int tile = 4;             // vertices a side of a tile of dot products
constexpr int most_edges = 512, most_vertices = 64;

// Passed by value, in the constant bank.
struct Edges {
  std::int32_t count;
  std::uint16_t end[most_edges][2];
};

// The threads that have a sample: a warp, or a block.
template <int threads>
struct Team {
  static constexpr int size = threads, warps = threads / warp_size;
  static constexpr int per_block = block_threads / threads;

  __device__ static int index() { return threadIdx.x / threads; }  // in the block
  __device__ static int thread() { return threadIdx.x % threads; }
  __device__ static int lane() { return threadIdx.x % warp_size; }
  __device__ static int warp() { return thread() / warp_size; }
  __device__ static void sync() {
    if (threads == warp_size)
      __syncwarp();
    else
      __syncthreads();
  }
};

// When a sample's vertices are copied to shared memory: while the team works on the sample before,
// or after that; or never, where they do not fit.
enum class Staging { ahead, in_turn, none };

// How a sample lies in shared memory; lengths count elements of the type that is computed in.
struct Layout {
  Staging staging;
  int vertices, padded;  // padded: rounded up to whole tiles
  int copy, rows, square, per_vertex, per_edge, total;

  // Sums of 16 dot products in each of 4 warps, for two tiles in turn.
  static constexpr int scratch = 2 * (block_threads / warp_size) * tile * tile;

  // Bytes: of an element as it is given, and of one that is computed in. Where both are the same,
  // what is copied in turn needs no place of its own: the exponentials replace it.
  Layout(const GraphFusion& args, Staging staging, int given_bytes, int real_bytes)
      : staging(staging),
        vertices(int(args.vertex_count)),
        padded(whole_tiles(vertices)),
        copy(staging == Staging::ahead || given_bytes != real_bytes
                 ? whole_tiles(divide_up(elements(args) * given_bytes, real_bytes))
                 : 0),
        rows(whole_tiles(elements(args))),
        square(padded * padded),
        per_vertex(padded),
        per_edge(whole_tiles(args.edge_count)),
        total(copy + rows + square + 2 * per_vertex + 3 * per_edge + scratch) {}

 private:
  static int whole_tiles(std::int64_t count) { return int(divide_up(count, tile)) * tile; }
  // That are staged.
  std::int64_t elements(const GraphFusion& args) const {
    return staging == Staging::none ? 0 : vertices * args.features;
  }
};

// A matrix with an entry for each pair of vertices.
template <class Real>
struct Square {
  Real* data;
  int stride;

  __device__ Real& operator()(int p, int q) const { return data[p * stride + q]; }
};

// A team's shared memory.
template <class T>
struct Memory {
  using Real = typename Accumulated<T>::Real;
  T* copy;     // (P, D), where vertices are staged
  Real* rows;  // (P, D), likewise: their exponentials
  Square<Real> square;
  Real *largest, *importance;    // (P,)
  Real *cosine, *weight, *grad;  // (E,)
  Real* scratch;

  __device__ Memory(const Layout& layout, int team) {
    Real* begin = reinterpret_cast<Real*>(shared_memory) + team * layout.total;
    copy = reinterpret_cast<T*>(begin);
    rows = begin + layout.copy;
    square = {rows + layout.rows, layout.padded};
    largest = square.data + layout.square;
    importance = largest + layout.per_vertex;
    cosine = importance + layout.per_vertex;
    weight = cosine + layout.per_edge;
    grad = weight + layout.per_edge;
    scratch = grad + layout.per_edge;
  }
};

// Calls body with the elements of an access: as many of Real as 16 bytes hold, or one.
template <class Real, class Body>
__device__ void with_width(bool wide, const Body& body) {
  if (wide)
    body(Constant<widest<Real>>{});
  else
    body(Constant<1>{});
}

}  // namespace graph
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
