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
constexpr int tile = 4;  // vertices a side of a tile of dot products
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

// How a sample lies in shared memory; lengths count elements of the type that is computed in.
struct Layout {
  int vertices, padded;  // padded: rounded up to whole tiles
  int rows, square, per_vertex, per_edge, total;

  // Sums of 16 dot products in each of 4 warps, for two tiles in turn.
  static constexpr int scratch = 2 * (block_threads / warp_size) * tile * tile;

  Layout(const GraphFusion& args, bool staged)
      : vertices(int(args.vertex_count)),
        padded(int(divide_up(vertices, tile)) * tile),
        rows(staged ? int(divide_up(vertices * args.features, tile)) * tile : 0),
        square(padded * padded),
        per_vertex(padded),
        per_edge(int(divide_up(args.edge_count, tile)) * tile),
        total(rows + square + 2 * per_vertex + 3 * per_edge + scratch) {}
};

// A matrix with an entry for each pair of vertices.
template <class Real>
struct Square {
  Real* data;
  int stride;

  __device__ Real& operator()(int p, int q) const { return data[p * stride + q]; }
};

// A team's shared memory.
template <class Real>
struct Memory {
  Real* rows;  // (P, D), where vertices are staged
  Square<Real> square;
  Real *largest, *importance;    // (P,)
  Real *cosine, *weight, *grad;  // (E,)
  Real* scratch;

  __device__ Memory(const Layout& layout, int team) {
    rows = reinterpret_cast<Real*>(shared_memory) + team * layout.total;
    square = {rows + layout.rows, layout.padded};
    largest = square.data + layout.square;
    importance = largest + layout.per_vertex;
    cosine = importance + layout.per_vertex;
    weight = cosine + layout.per_edge;
    grad = weight + layout.per_edge;
    scratch = grad + layout.per_edge;
  }
};

// Calls body with the elements of an access: as many as 16 bytes hold, or one.
template <class T, class Body>
__device__ void with_width(bool wide, const Body& body) {
  if (wide)
    body(Constant<widest<T>>{});
  else
    body(Constant<1>{});
}

}  // namespace graph
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
