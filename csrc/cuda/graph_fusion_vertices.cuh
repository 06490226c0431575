// What graph fusion makes of vertices: their exponentials, the dot products of these, and in the
// end the vertices' gradient. Whoever calls synchronises the team between two stages.
#pragma once

#include "cuda/graph_fusion_sample.cuh"
#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace graph {

// A sample's vertices: staged, in shared memory; else, where they do not fit, where they are given.
template <class T, bool staged>
struct Vertices {
  using Real = typename Accumulated<T>::Real;
  const T* given;  // (P, D)
  Real* rows;      // (P, D) staged
  int count, features;

  __device__ Real operator()(int p, int i) const {
    return staged ? rows[p * features + i] : widen<Real>(given[std::int64_t(p) * features + i]);
  }
};

// Their exponentials u = exp(v - max v): staged, in their place; else computed at every use.
template <class T, bool staged>
struct Exponentials {
  using Real = typename Accumulated<T>::Real;
  Vertices<T, staged> vertices;
  const Real* largest;  // (P,)

  __device__ Real operator()(int p, int i) const {
    return staged ? vertices(p, i) : exp_nonpositive(vertices(p, i) - largest[p]);
  }
};

// Brings the vertices to where they are read from, V elements an access.
template <class Team, int V, class T, bool staged>
__device__ void stage(const Vertices<T, staged>& vertices) {
  using Real = typename Accumulated<T>::Real;
  if constexpr (staged) {
    const std::int64_t count = std::int64_t(vertices.count) * vertices.features;
#pragma unroll 4
    for (std::int64_t i = Team::thread() * V; i < count; i += Team::size * V) {
      Real v[V];
      load(vertices.given + i, count - i, Real(0), v);
      store(v, count - i, vertices.rows + i);
    }
  }
}

// The maximum of every vertex, a vertex a warp.
template <class Team, class T, bool staged>
__device__ void find_largest(const Vertices<T, staged>& vertices,
                             typename Accumulated<T>::Real* largest) {  // (P,)
  using Real = typename Accumulated<T>::Real;
  for (int p = Team::warp(); p < vertices.count; p += Team::warps) {
    Real most = vertices(p, 0);
    for (int i = Team::lane(); i < vertices.features; i += warp_size) {
      const Real v = vertices(p, i);
      most = v > most ? v : most;
    }
    most = largest_of_lanes(most);
    if (Team::lane() == 0) largest[p] = most;
  }
}

// The exponentials, a vertex a warp: the same as of find_largest.
template <class Team, class T, bool staged>
__device__ Exponentials<T, staged> exponentiate(
    const Vertices<T, staged>& vertices, const typename Accumulated<T>::Real* largest) {  // (P,)
  using Real = typename Accumulated<T>::Real;
  if constexpr (staged) {
    for (int p = Team::warp(); p < vertices.count; p += Team::warps) {
      const Real most = largest[p];
      for (int i = Team::lane(); i < vertices.features; i += warp_size) {
        Real& v = vertices.rows[p * vertices.features + i];
        v = exp_nonpositive(v - most);
      }
    }
  }
  return {vertices, largest};
}

// Adds this thread's share of <u_(p + k), u_(q + l)>; rows beyond the last vertex repeat it.
template <class Team, bool diagonal, class T, bool staged, class Real>
__device__ void add_products(const Exponentials<T, staged>& exps, int p, int q,
                             Real (&sums)[tile * tile]) {
  const int last = exps.vertices.count - 1;
  for (int i = Team::thread(); i < exps.vertices.features; i += Team::size) {
    Real a[tile], b[tile];
#pragma unroll
    for (int k = 0; k < tile; ++k) {
      a[k] = exps(p + k < last ? p + k : last, i);
      b[k] = diagonal ? a[k] : exps(q + k < last ? q + k : last, i);
    }
#pragma unroll
    for (int k = 0; k < tile * tile; ++k) sums[k] += a[k / tile] * b[k % tile];
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
  if (!owner) return;
  products(p + k / tile, q + k % tile) = sum;
  // In a tile on the diagonal every place has an owner already.
  if (p != q) products(q + k % tile, p + k / tile) = sum;
}

// All dot products <u_p, u_q>.
template <class Team, class T, bool staged, class Real>
__device__ void multiply_pairs(const Exponentials<T, staged>& exps, const Square<Real>& products,
                               Real* scratch) {
  int turn = 0;
  for (int p = 0; p < exps.vertices.count; p += tile)
    for (int q = p; q < exps.vertices.count; q += tile) {
      Real sums[tile * tile] = {};
      if (p == q)
        add_products<Team, true>(exps, p, q, sums);
      else
        add_products<Team, false>(exps, p, q, sums);
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
      for (int r = 0; r < count; ++r) {
        const Pack<Real, tile> factor = Pack<Real, tile>::read(&mixing(r, p));
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Real u = exps(r, i + v);
#pragma unroll
          for (int k = 0; k < tile; ++k) sum[k][v] += factor.element[k] * u;
        }
      }
#pragma unroll
      for (int k = 0; k < tile; ++k) {
        if (p + k >= count) continue;
        for (int v = 0; v < V; ++v) sum[k][v] *= exps(p + k, i + v);
        store(sum[k], features - i, grad_vertices + std::int64_t(p + k) * features + i);
      }
    }
}

}  // namespace graph
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
