// What graph fusion makes of vertices: their exponentials, the dot products of these, and in the
// end the vertices' gradient. Whoever calls synchronises the team between two stages.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "cuda/graph_fusion_sample.cuh"
#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace graph {

// A sample's vertices, in shared memory where they are staged and in global memory elsewhere.
template <class T>
struct Vertices {
  using Real = typename Accumulated<T>::Real;
  const T* data;  // (P, D)
  int count, features;

  template <int V>
  __device__ void read(int p, int i, Real (&to)[V]) const {
    load(data + std::int64_t(p) * features + i, V, Real(0), to);
  }
};

// Their exponentials u = exp(v - max v): staged, in shared memory; else computed at every use.
template <class T, bool staged>
struct Exponentials {
  using Real = typename Accumulated<T>::Real;
  Vertices<T> vertices;
  const Real* largest;  // (P,)
  Real* rows;           // (P, D) staged

  template <int V>
  __device__ void read(int p, int i, Real (&to)[V]) const {
    if constexpr (staged)
      load(rows + p * vertices.features + i, V, Real(0), to);
    else
      compute(p, i, to);
  }
  template <int V>
  __device__ void compute(int p, int i, Real (&to)[V]) const {
    vertices.read(p, i, to);
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = exp_nonpositive(to[v] - largest[p]);
  }
};

// Asks for a copy of a sample's vertices; a thread has what it asked for after
// __pipeline_wait_prior(0), the team after a barrier behind that.
template <class Team, class T>
__device__ void begin_copy(const T* given, std::int64_t count, bool wide, T* copy) {  // (count,)
  constexpr int V = widest<T>;
  if (wide) {
    for (std::int64_t i = Team::thread() * V; i < count; i += Team::size * V)
      __pipeline_memcpy_async(copy + i, given + i, V * sizeof(T));
    __pipeline_commit();
  } else {
    for (std::int64_t i = Team::thread(); i < count; i += Team::size) copy[i] = given[i];
  }
}

// The maximum of every vertex, a vertex a warp.
template <class Team, int V, class T>
__device__ void find_largest(const Vertices<T>& vertices,
                             typename Accumulated<T>::Real* largest) {  // (P,)
  using Real = typename Accumulated<T>::Real;
  for (int p = Team::warp(); p < vertices.count; p += Team::warps) {
    Real first[1];
    vertices.read(p, 0, first);
    Real most = first[0];
    for (int i = Team::lane() * V; i < vertices.features; i += warp_size * V) {
      Real v[V];
      vertices.read(p, i, v);
#pragma unroll
      for (int k = 0; k < V; ++k) most = v[k] > most ? v[k] : most;
    }
    most = largest_of_lanes(most);
    if (Team::lane() == 0) largest[p] = most;
  }
}

// Stages the exponentials, a vertex a warp: the same as of find_largest.
template <class Team, int V, class T, bool staged>
__device__ void exponentiate(const Exponentials<T, staged>& exps) {
  if constexpr (staged) {
    const int features = exps.vertices.features;
    for (int p = Team::warp(); p < exps.vertices.count; p += Team::warps)
      for (int i = Team::lane() * V; i < features; i += warp_size * V) {
        typename Accumulated<T>::Real u[V];
        exps.compute(p, i, u);
        store(u, V, exps.rows + p * features + i);
      }
  }
}

// Adds this thread's share of <u_(p + k), u_(q + l)>, on the diagonal for l >= k alone; rows beyond
// the last vertex repeat it.
template <class Team, int V, bool diagonal, class T, bool staged, class Real>
__device__ void add_products(const Exponentials<T, staged>& exps, int p, int q,
                             Real (&sums)[tile * tile]) {
  const int last = exps.vertices.count - 1;
  for (int i = Team::thread() * V; i < exps.vertices.features; i += Team::size * V) {
    Real a[tile][V], b[V];
#pragma unroll
    for (int k = 0; k < tile; ++k) exps.read(p + k < last ? p + k : last, i, a[k]);
#pragma unroll
    for (int l = 0; l < tile; ++l) {
      if (!diagonal) exps.read(q + l < last ? q + l : last, i, b);
#pragma unroll
      for (int k = 0; k < tile; ++k) {
        if (diagonal && k > l) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) sums[k * tile + l] += a[k][v] * (diagonal ? a[l][v] : b[v]);
      }
    }
  }
}

// Adds up the warps' sums, which lie one in two lanes, and puts them where they belong. `scratch`
// is another than that of the tile before.
template <class Team, class Real>
__device__ void combine(const Square<Real>& products, int p, int q, Real sum, Real* scratch) {
  int k = Team::lane() / 2;
  bool owner = Team::lane() % 2 == 0;
  if constexpr (Team::warps > 1) {
    if (owner) scratch[Team::warp() * tile * tile + k] = sum;
    Team::sync();
    owner = Team::thread() < tile * tile;
    if (owner) {
      k = Team::thread();
      sum = 0;
      for (int w = 0; w < Team::warps; ++w) sum += scratch[w * tile * tile + k];
    }
  }
  const int row = k / tile, column = k % tile;
  if (!owner || (p == q && column < row)) return;
  products(p + row, q + column) = sum;
  if (p + row != q + column) products(q + column, p + row) = sum;
}

// All dot products <u_p, u_q>.
template <class Team, int V, class T, bool staged, class Real>
__device__ void multiply_pairs(const Exponentials<T, staged>& exps, const Square<Real>& products,
                               Real* scratch) {
  int turn = 0;
  for (int p = 0; p < exps.vertices.count; p += tile)
    for (int q = p; q < exps.vertices.count; q += tile) {
      Real sums[tile * tile] = {};
      if (p == q)
        add_products<Team, V, true>(exps, p, q, sums);
      else
        add_products<Team, V, false>(exps, p, q, sums);
      turn ^= 1;
      combine<Team>(products, p, q, sums_of_16(sums), scratch + turn * Team::warps * tile * tile);
    }
}

// The gradient of the vertices, u_p * sum_r mixing[p, r] u_r for a symmetric mixing matrix: 4
// vertices by V columns at a time in registers.
template <class Team, int V, class T, bool staged, class Real>
__device__ void vertex_gradient(const Exponentials<T, staged>& exps, const Square<Real>& mixing,
                                T* grad_vertices) {  // (P, D)
  const int count = exps.vertices.count, features = exps.vertices.features;
  for (int i = Team::thread() * V; i < features; i += Team::size * V)
    for (int p = 0; p < count; p += tile) {
      Real sum[tile][V] = {};
#pragma unroll 1  // four sums of V are enough at a time, and registers few
      for (int r = 0; r < count; ++r) {
        const Pack<Real, tile> factor = Pack<Real, tile>::read(&mixing(r, p));
        Real u[V];
        exps.read(r, i, u);
#pragma unroll
        for (int k = 0; k < tile; ++k)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[k][v] += factor.element[k] * u[v];
      }
#pragma unroll
      for (int k = 0; k < tile; ++k) {
        if (p + k >= count) continue;
        Real u[V];
        exps.read(p + k, i, u);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[k][v] *= u[v];
        store(sum[k], V, grad_vertices + std::int64_t(p + k) * features + i);
      }
    }
}

}  // namespace graph
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
