// What graph fusion makes of edges: their weights, the weighted sum of their vertices, and the
// gradients of both. Whoever calls synchronises the team between two stages; those that say so are
// for its first warp alone.
#pragma once

#include <cmath>
#include <limits>

#include "cuda/graph_fusion_sample.cuh"
#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace graph {

// w_a + w_b of edge e.
template <class Real>
__device__ Real importance_of(const Edges& edges, int e, const Real* importance) {
  return importance[edges.end[e][0]] + importance[edges.end[e][1]];
}

// The edges' cosines, from the dot products of their ends. By the first warp.
template <class Real>
__device__ void find_cosines(const Edges& edges, const Square<Real>& products, Real* cosine) {
  for (int e = threadIdx.x % warp_size; e < edges.count; e += warp_size) {
    const int i = edges.end[e][0], j = edges.end[e][1];
    cosine[e] = products(i, j) / std::sqrt(products(i, i) * products(j, j));
  }
}

// Softmax over the edges of (w_a + w_b) / (S_ab + theta). By the first warp, each lane of which
// reads the cosines that it found itself.
template <class Real>
__device__ void find_weights(const Edges& edges, const Real* importance,  // (P,)
                             const Real* cosine, Real theta,              // (E,)
                             Real* weight) {                              // (E,)
  const int lane = threadIdx.x % warp_size;
  Real most = std::numeric_limits<Real>::lowest(), sum = 0;
  for (int e = lane; e < edges.count; e += warp_size) {
    weight[e] = importance_of(edges, e, importance) / (cosine[e] + theta);
    most = weight[e] > most ? weight[e] : most;
  }
  most = largest_of_lanes(most);
  for (int e = lane; e < edges.count; e += warp_size)
    sum += weight[e] = exp_nonpositive(weight[e] - most);
  sum = sum_of_lanes(sum);
  for (int e = lane; e < edges.count; e += warp_size) weight[e] /= sum;
}

// fused = sum_e weight[e] edge_vertices[e], V columns a thread; the width is a multiple of V.
template <class Team, int V, class T, class Real>
__device__ void fuse(int edges, std::int64_t width, const Real* weight,
                     const T* edge_vertices,  // (E, D')
                     T* fused) {              // (D',)
  for (std::int64_t i = Team::thread() * V; i < width; i += Team::size * V) {
    Real sum[V] = {};
#pragma unroll 4
    for (int e = 0; e < edges; ++e) {
      Real v[V];
      load(edge_vertices + e * width + i, V, Real(0), v);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += weight[e] * v[k];
    }
    store(sum, V, fused + i);
  }
}

// Adds the gradient of the weights through the weighted sum to `grad`, and writes that of the edge
// vertices; an edge a warp.
template <class Team, int V, class T, class Real>
__device__ void fusion_gradient(int edges, std::int64_t width, const Real* weight,
                                const T* edge_vertices,  // (E, D')
                                const T* grad_fused,     // (D',)
                                T* grad_edge_vertices,   // (E, D')
                                Real* grad) {            // (E,)
  for (int e = Team::warp(); e < edges; e += Team::warps) {
    const T* from = edge_vertices + e * width;
    T* to = grad_edge_vertices + e * width;
    const Real factor = weight[e];
    Real sum = 0;
#pragma unroll 2
    for (std::int64_t i = Team::lane() * V; i < width; i += warp_size * V) {
      Real v[V], g[V];
      load(from + i, V, Real(0), v);
      load(grad_fused + i, V, Real(0), g);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        sum += v[k] * g[k];
        g[k] *= factor;
      }
      store(g, V, to + i);
    }
    sum = sum_of_lanes(sum);
    if (Team::lane() == 0) grad[e] += sum;
  }
}

// From `grad`, the gradient of the weights, to that of the sums of importances, in its place, and
// from the weights to the gradient of the cosines, in theirs. By the first warp.
template <class Real>
__device__ void edge_gradient(const Edges& edges, const Real* importance,  // (P,)
                              const Real* cosine, Real theta,              // (E,)
                              Real* grad, Real* weight) {                  // (E,)
  const int lane = threadIdx.x % warp_size;
  Real mean = 0;
  for (int e = lane; e < edges.count; e += warp_size) mean += weight[e] * grad[e];
  mean = sum_of_lanes(mean);
  for (int e = lane; e < edges.count; e += warp_size) {
    const Real denominator = cosine[e] + theta;
    const Real ratio = weight[e] * (grad[e] - mean) / denominator;
    grad[e] = ratio;
    weight[e] = -ratio * importance_of(edges, e, importance) / denominator;
  }
}

// The gradient of the importance, and the symmetric mixing matrix of vertex_gradient. A thread a
// vertex, edges in order.
template <class Team, class T, class Real>
__device__ void mix_vertices(const Edges& edges, const Layout& layout, const Real* cosine,  // (E,)
                             const Real* grad_sum, const Real* grad_cosine,                 // (E,)
                             const Real* squares,  // (P,): <u_p, u_p>
                             const Square<Real>& mixing,
                             T* grad_importance) {  // (P,)
  for (int p = Team::thread(); p < layout.padded; p += Team::size) {
    for (int r = 0; r < layout.padded; ++r) mixing(p, r) = 0;
    if (p >= layout.vertices) continue;
    Real importance = 0;
#pragma unroll 1  // a vertex has few of the edges
    for (int e = 0; e < edges.count; ++e) {
      const int i = edges.end[e][0], j = edges.end[e][1];
      if (i != p && j != p) continue;
      const Real slope = grad_cosine[e];
      const Real cross = slope / std::sqrt(squares[i] * squares[j]);
      const Real own = slope * cosine[e] / squares[p];
      const int times = (i == p) + (j == p);
      importance += times * grad_sum[e];
      mixing(p, i == p ? j : i) += times * cross;
      mixing(p, p) -= times * own;
    }
    grad_importance[p] = narrow<T>(importance);
  }
}

}  // namespace graph
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
