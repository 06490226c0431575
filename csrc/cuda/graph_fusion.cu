// Edge weights of graph fusion, alone or together with the weighted sum that they are for.
//
// A team of threads (a warp, or a block of four) has one sample. Its vertices are read once, with
// 16-byte accesses, into shared memory, where u = exp(V - max V) replaces them. All dot products
// <u_a, u_b> come from 4 x 4 tiles held in registers, so that shared memory is read at most three
// times for 12 vertices; edges then only look them up. Edge vertices are streamed once.
//
// Bytes that must move, for elements of s bytes: forward B (P D + E D' + D') s, backward
// B (2 P D + 2 E D' + D') s; without a fused vector D' = 0. The (B, E) and (B, P) terms are small.
#include <cmath>
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr std::int64_t graph_fusion_edges = 512, graph_fusion_vertices = 64;

namespace {

constexpr int graph_threads = 128;
constexpr int tile = 4;  // vertices a side of a tile of dot products

// Passed by value, in the constant bank.
struct Edges {
  std::uint16_t end[graph_fusion_edges][2];
};

// How a sample lies in shared memory; lengths count elements of Real.
struct Layout {
  int edges, vertices, padded;  // padded: vertices rounded up to whole tiles
  int pairs, per_vertex, per_edge, exps, total;

  Layout(const GraphFusion& args, bool staged)
      : edges(int(args.edge_count)),
        vertices(int(args.vertex_count)),
        padded(int(divide_up(vertices, tile)) * tile),
        pairs(padded * padded),
        per_vertex(padded),
        per_edge(int(divide_up(edges, tile)) * tile),
        exps(staged ? int(divide_up(vertices * args.features, tile)) * tile : 0),
        total(exps + pairs + 2 * per_vertex + 3 * per_edge + scratch) {}

  // Sums of 16 dot products in each of 4 warps, for two tiles in turn.
  static constexpr int scratch = 2 * (graph_threads / warp_size) * tile * tile;
};

// A team's view of a sample. Staged: the exponentials lie in shared memory; else, where they do not
// fit, they are computed from the vertices whenever they are needed.
template <class T, int team, bool staged>
class Sample {
 public:
  using Real = typename Accumulated<T>::Real;
  static constexpr int warps = team / warp_size;

  __device__ Sample(const GraphFusion& args, const Layout& layout)
      : args_(args), layout_(layout), features_(int(args.features)) {
    Real* memory = reinterpret_cast<Real*>(shared_memory) + threadIdx.x / team * layout.total;
    exps_ = memory;
    pairs = exps_ + layout.exps;
    largest = pairs + layout.pairs;
    importance = largest + layout.per_vertex;
    cosine = importance + layout.per_vertex;
    weight = cosine + layout.per_edge;
    grad = weight + layout.per_edge;
    scratch_ = grad + layout.per_edge;
  }

  Real* pairs;       // (P, P) dot products, or the mixing matrix; rows of `padded`
  Real* largest;     // (P,)
  Real* importance;  // (P,)
  Real* cosine;      // (E,)
  Real* weight;      // (E,)
  Real* grad;        // (E,)

  __device__ static int thread() { return threadIdx.x % team; }
  __device__ static int lane() { return threadIdx.x % warp_size; }
  __device__ static int warp() { return thread() / warp_size; }
  __device__ static void sync() {
    if (team == warp_size)
      __syncwarp();
    else
      __syncthreads();
  }

  // Reads the vertices, as they are, and the importance of a sample.
  __device__ void read(std::int64_t sample, bool wide) {
    const std::int64_t count = std::int64_t(layout_.vertices) * features_;
    vertices_ = static_cast<const T*>(args_.vertices) + sample * count;
    if constexpr (staged) {
      if (wide)
        stage<widest<T>>(count);
      else
        stage<1>(count);
    }
    const T* importance_of = static_cast<const T*>(args_.importance) + sample * layout_.vertices;
    for (int p = thread(); p < layout_.vertices; p += team)
      importance[p] = widen<Real>(importance_of[p]);
  }

  // Fills `largest`, a vertex a warp. After read and a sync.
  __device__ void find_largest() {
    for (int p = warp(); p < layout_.vertices; p += warps) {
      Real most = vertex(p, 0);
      for (int i = lane(); i < features_; i += warp_size) {
        const Real v = vertex(p, i);
        most = v > most ? v : most;
      }
      most = largest_of_lanes(most);
      if (lane() == 0) largest[p] = most;
    }
  }

  // Turns the vertices in shared memory into exponentials. After find_largest by the same warps.
  __device__ void exponentiate() {
    if constexpr (staged) {
      for (int p = warp(); p < layout_.vertices; p += warps) {
        const Real most = largest[p];
        for (int i = lane(); i < features_; i += warp_size) {
          Real& v = exps_[p * features_ + i];
          v = exp_nonpositive(v - most);
        }
      }
    }
  }

  // u_p[i]
  __device__ Real exp(int p, int i) const {
    return staged ? exps_[p * features_ + i]
                  : exp_nonpositive(widen<Real>(vertices_[std::int64_t(p) * features_ + i]) -
                                    largest[p]);
  }

  // Fills `pairs` with all dot products of exponentials.
  __device__ void multiply_pairs() {
    int turn = 0;
    for (int p = 0; p < layout_.vertices; p += tile)
      for (int q = p; q < layout_.vertices; q += tile) {
        Real sums[tile * tile] = {};
        if (p == q)
          add_products<true>(p, q, sums);
        else
          add_products<false>(p, q, sums);
        combine(p, q, sums_of_16(sums), turn ^= 1);
      }
  }

  // The dot products' edges: cosines, into `cosine`. By the first warp.
  __device__ void find_cosines(const Edges& edges) {
    for (int e = lane(); e < layout_.edges; e += warp_size) {
      const int i = edges.end[e][0], j = edges.end[e][1];
      cosine[e] = pair(i, j) / std::sqrt(pair(i, i) * pair(j, j));
    }
  }

  // Softmax over the edges of (w_a + w_b) / (S_ab + theta), into `weight`. By the first warp.
  __device__ void find_weights(const Edges& edges) {
    Real most = std::numeric_limits<Real>::lowest(), sum = 0;
    for (int e = lane(); e < layout_.edges; e += warp_size) {
      weight[e] = importance_of(edges, e) / (cosine[e] + Real(args_.theta));
      most = weight[e] > most ? weight[e] : most;
    }
    most = largest_of_lanes(most);
    for (int e = lane(); e < layout_.edges; e += warp_size)
      sum += weight[e] = exp_nonpositive(weight[e] - most);
    sum = sum_of_lanes(sum);
    for (int e = lane(); e < layout_.edges; e += warp_size) weight[e] /= sum;
  }

  __device__ Real importance_of(const Edges& edges, int e) const {
    return importance[edges.end[e][0]] + importance[edges.end[e][1]];
  }
  __device__ Real& pair(int p, int q) { return pairs[p * layout_.padded + q]; }

 private:
  __device__ Real vertex(int p, int i) const {
    const std::int64_t index = std::int64_t(p) * features_ + i;
    return staged ? exps_[index] : widen<Real>(vertices_[index]);
  }

  template <int V>
  __device__ void stage(std::int64_t count) {
#pragma unroll 4
    for (std::int64_t i = thread() * V; i < count; i += team * V) {
      Real v[V];
      load(vertices_ + i, count - i, Real(0), v);
      store(v, count - i, exps_ + i);
    }
  }

  // Adds this thread's share of <u_(p + k), u_(q + l)>; rows beyond the last vertex repeat it.
  template <bool diagonal>
  __device__ void add_products(int p, int q, Real (&sums)[tile * tile]) const {
    const int last = layout_.vertices - 1;
    for (int i = thread(); i < features_; i += team) {
      Real a[tile], b[tile];
#pragma unroll
      for (int k = 0; k < tile; ++k) {
        a[k] = exp(p + k < last ? p + k : last, i);
        b[k] = diagonal ? a[k] : exp(q + k < last ? q + k : last, i);
      }
#pragma unroll
      for (int k = 0; k < tile * tile; ++k) sums[k] += a[k / tile] * b[k % tile];
    }
  }

  // Adds up the warps' sums, which lie one in two lanes, and puts them where they belong.
  __device__ void combine(int p, int q, Real sum, int turn) {
    int k = lane() / 2;
    bool owner = lane() % 2 == 0;
    if constexpr (warps > 1) {
      Real* sums = scratch_ + turn * warps * tile * tile;
      if (owner) sums[warp() * tile * tile + k] = sum;
      sync();
      owner = thread() < tile * tile;
      if (owner) {
        k = thread();
        sum = 0;
        for (int w = 0; w < warps; ++w) sum += sums[w * tile * tile + k];
      }
    }
    if (owner) pair(p + k / tile, q + k % tile) = pair(q + k % tile, p + k / tile) = sum;
  }

  const GraphFusion& args_;
  const Layout& layout_;
  const int features_;
  const T* vertices_ = nullptr;
  Real* exps_;
  Real* scratch_;
};

// What 16-byte accesses may take in rows of vertices and of edge vertices.
struct Wide {
  bool vertices, edge_vertices;
};

template <int team>
__device__ std::int64_t first_sample() {
  return std::int64_t(blockIdx.x) * (graph_threads / team) + threadIdx.x / team;
}
template <int team>
__device__ std::int64_t sample_step() {
  return std::int64_t(gridDim.x) * (graph_threads / team);
}

// fused = sum_e weight[e] edge_vertices[e], V columns a thread.
template <int V, class T, int team, bool staged>
__device__ void fuse(const GraphFusionForward& args, std::int64_t b,
                     const Sample<T, team, staged>& sample) {
  using Real = typename Accumulated<T>::Real;
  const std::int64_t width = args.edge_features;
  const int edges = int(args.edge_count);
  const T* from = static_cast<const T*>(args.edge_vertices) + b * edges * width;
  for (std::int64_t i = sample.thread() * V; i < width; i += team * V) {
    Real sum[V] = {};
#pragma unroll 4
    for (int e = 0; e < edges; ++e) {
      Real v[V];
      load(from + e * width + i, width - i, Real(0), v);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += sample.weight[e] * v[k];
    }
    store(sum, width - i, static_cast<T*>(args.fused) + b * width + i);
  }
}

template <class T, int team, bool staged>
__global__ void __launch_bounds__(graph_threads)
    forward(const __grid_constant__ GraphFusionForward args, const __grid_constant__ Layout layout,
            const __grid_constant__ Edges edges, Wide wide) {
  using Real = typename Accumulated<T>::Real;
  Sample<T, team, staged> sample(args, layout);
  for (std::int64_t b = first_sample<team>(); b < args.batch; b += sample_step<team>()) {
    sample.read(b, wide.vertices);
    sample.sync();
    sample.find_largest();
    __syncwarp();
    sample.exponentiate();
    sample.sync();
    sample.multiply_pairs();
    sample.sync();
    if (sample.warp() == 0) {
      sample.find_cosines(edges);
      sample.find_weights(edges);
    }
    sample.sync();

    Real* stats = static_cast<Real*>(args.stats) + b * (layout.edges + 2 * layout.vertices);
    T* weights = static_cast<T*>(args.weights) + b * layout.edges;
    for (int e = sample.thread(); e < layout.edges; e += team) {
      stats[e] = sample.cosine[e];
      weights[e] = narrow<T>(sample.weight[e]);
    }
    for (int p = sample.thread(); p < layout.vertices; p += team) {
      stats[layout.edges + p] = sample.largest[p];
      stats[layout.edges + layout.vertices + p] = sample.pair(p, p);
    }
    if (args.fused) {
      if (wide.edge_vertices)
        fuse<widest<T>>(args, b, sample);
      else
        fuse<1>(args, b, sample);
    }
    sample.sync();
  }
}

// Adds the gradient of the weights through the weighted sum, and writes that of the edge vertices;
// an edge a warp.
template <int V, class T, int team, bool staged>
__device__ void fusion_gradient(const GraphFusionBackward& args, std::int64_t b,
                                const Sample<T, team, staged>& sample) {
  using Real = typename Accumulated<T>::Real;
  const std::int64_t width = args.edge_features;
  const T* fused = static_cast<const T*>(args.grad_fused) + b * width;
  for (int e = sample.warp(); e < args.edge_count; e += sample.warps) {
    const std::int64_t row = (b * args.edge_count + e) * width;
    const T* from = static_cast<const T*>(args.edge_vertices) + row;
    T* to = static_cast<T*>(args.grad_edge_vertices) + row;
    const Real weight = sample.weight[e];
    Real sum = 0;
#pragma unroll 2
    for (std::int64_t i = sample.lane() * V; i < width; i += warp_size * V) {
      Real v[V], g[V];
      load(from + i, width - i, Real(0), v);
      load(fused + i, width - i, Real(0), g);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        sum += v[k] * g[k];
        g[k] *= weight;
      }
      store(g, width - i, to + i);
    }
    sum = sum_of_lanes(sum);
    if (sample.lane() == 0) sample.grad[e] += sum;
  }
}

// Turns the gradient of the weights into that of the sum of importances, in `grad`, and of the
// cosines, in `weight`. By the first warp.
template <class T, int team, bool staged>
__device__ void edge_gradient(const GraphFusionBackward& args, const Edges& edges,
                              const Sample<T, team, staged>& sample) {
  using Real = typename Accumulated<T>::Real;
  Real mean = 0;
  for (int e = sample.lane(); e < args.edge_count; e += warp_size)
    mean += sample.weight[e] * sample.grad[e];
  mean = sum_of_lanes(mean);
  for (int e = sample.lane(); e < args.edge_count; e += warp_size) {
    const Real denominator = sample.cosine[e] + Real(args.theta);
    const Real ratio = sample.weight[e] * (sample.grad[e] - mean) / denominator;
    sample.grad[e] = ratio;
    sample.weight[e] = -ratio * sample.importance_of(edges, e) / denominator;
  }
}

// The gradient of the importance, and the symmetric mixing matrix: the gradient of V_p is
// u_p * sum_r mixing[p, r] u_r. A thread a vertex, edges in order.
template <class T, int team, bool staged>
__device__ void vertex_coefficients(const GraphFusionBackward& args, const Layout& layout,
                                    const Edges& edges, std::int64_t b,
                                    const typename Accumulated<T>::Real* squares,
                                    Sample<T, team, staged>& sample) {
  using Real = typename Accumulated<T>::Real;
  for (int p = sample.thread(); p < layout.padded; p += team) {
    for (int r = 0; r < layout.padded; ++r) sample.pair(p, r) = 0;
    if (p >= layout.vertices) continue;
    Real importance = 0;
    for (int e = 0; e < layout.edges; ++e) {
      const int i = edges.end[e][0], j = edges.end[e][1];
      if (i != p && j != p) continue;
      const Real slope = sample.weight[e];
      const Real cross = slope / std::sqrt(squares[i] * squares[j]);
      const Real own = slope * sample.cosine[e] / squares[p];
      const int times = (i == p) + (j == p);
      importance += times * sample.grad[e];
      sample.pair(p, i == p ? j : i) += times * cross;
      sample.pair(p, p) -= times * own;
    }
    static_cast<T*>(args.grad_importance)[b * layout.vertices + p] = narrow<T>(importance);
  }
}

// The gradient of the vertices, 4 vertices by V columns at a time in registers.
template <int V, class T, int team, bool staged>
__device__ void vertex_gradient(const GraphFusionBackward& args, const Layout& layout,
                                std::int64_t b, Sample<T, team, staged>& sample) {
  using Real = typename Accumulated<T>::Real;
  const int features = int(args.features);
  T* to = static_cast<T*>(args.grad_vertices) + b * layout.vertices * features;
  for (int i = sample.thread() * V; i < features; i += team * V)
    for (int p = 0; p < layout.vertices; p += tile) {
      Real sum[tile][V] = {};
      for (int r = 0; r < layout.vertices; ++r) {
        const Pack<Real, tile> factor = Pack<Real, tile>::read(&sample.pair(r, p));
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Real u = sample.exp(r, i + v);
#pragma unroll
          for (int k = 0; k < tile; ++k) sum[k][v] += factor.element[k] * u;
        }
      }
#pragma unroll
      for (int k = 0; k < tile; ++k) {
        if (p + k >= layout.vertices) continue;
        for (int v = 0; v < V; ++v) sum[k][v] *= sample.exp(p + k, i + v);
        store(sum[k], features - i, to + std::int64_t(p + k) * features + i);
      }
    }
}

template <class T, int team, bool staged>
__global__ void __launch_bounds__(graph_threads)
    backward(const __grid_constant__ GraphFusionBackward args,
             const __grid_constant__ Layout layout, const __grid_constant__ Edges edges,
             Wide wide) {
  using Real = typename Accumulated<T>::Real;
  Sample<T, team, staged> sample(args, layout);
  for (std::int64_t b = first_sample<team>(); b < args.batch; b += sample_step<team>()) {
    const Real* stats =
        static_cast<const Real*>(args.stats) + b * (layout.edges + 2 * layout.vertices);
    sample.read(b, wide.vertices);
    for (int p = sample.thread(); p < layout.vertices; p += team)
      sample.largest[p] = stats[layout.edges + p];
    for (int e = sample.thread(); e < layout.edges; e += team) {
      sample.cosine[e] = stats[e];
      sample.grad[e] =
          args.grad_weights
              ? widen<Real>(static_cast<const T*>(args.grad_weights)[b * layout.edges + e])
              : Real(0);
    }
    sample.sync();
    sample.exponentiate();
    if (sample.warp() == 0) sample.find_weights(edges);
    sample.sync();
    if (args.grad_fused) {
      if (wide.edge_vertices)
        fusion_gradient<widest<T>>(args, b, sample);
      else
        fusion_gradient<1>(args, b, sample);
      sample.sync();
    }
    if (sample.warp() == 0) edge_gradient(args, edges, sample);
    sample.sync();
    vertex_coefficients(args, layout, edges, b, stats + layout.edges + layout.vertices, sample);
    sample.sync();
    if (wide.vertices)
      vertex_gradient<widest<T>>(args, layout, b, sample);
    else
      vertex_gradient<1>(args, layout, b, sample);
    sample.sync();
  }
}

Edges as_edges(const GraphFusion& args) {
  if (args.edge_count > graph_fusion_edges || args.vertex_count > graph_fusion_vertices)
    throw std::invalid_argument("fastmtl: the CUDA kernels take at most " +
                                std::to_string(graph_fusion_edges) + " edges of " +
                                std::to_string(graph_fusion_vertices) + " vertices");
  Edges edges = {};
  for (std::int64_t e = 0; e < 2 * args.edge_count; ++e)
    edges.end[e / 2][e % 2] = std::uint16_t(args.edges[e]);
  return edges;
}

template <class T>
bool rows_aligned(std::int64_t width, std::initializer_list<const void*> pointers) {
  return width % widest<T> == 0 && std::all_of(pointers.begin(), pointers.end(), aligned);
}

// Calls launch_team(team, staged, layout, blocks, shared bytes) with the team that suits a sample.
template <class Real, class Body>
void with_team(const GraphFusion& args, const Body& launch_team) {
  constexpr int warp_teams = graph_threads / warp_size;
  // Four samples to a block, and many blocks to a multiprocessor.
  constexpr std::int64_t small = 12 << 10, large = 112 << 10;
  const auto blocks = [&](std::int64_t samples) {
    constexpr std::int64_t blocks_a_multiprocessor = 32;
    return dim3(unsigned(
        std::max<std::int64_t>(std::min<std::int64_t>(divide_up(args.batch, samples),
                                                      blocks_a_multiprocessor * multiprocessors()),
                               1)));
  };
  const Layout staged(args, true), direct(args, false);
  const std::int64_t bytes = staged.total * std::int64_t(sizeof(Real));
  using Warp = std::integral_constant<int, warp_size>;
  using Block = std::integral_constant<int, graph_threads>;
  if (bytes <= small)
    return launch_team(Warp{}, std::true_type{}, staged, blocks(warp_teams), warp_teams * bytes);
  if (bytes <= std::min<std::int64_t>(large, most_shared_bytes()))
    return launch_team(Block{}, std::true_type{}, staged, blocks(1), bytes);
  launch_team(Block{}, std::false_type{}, direct, blocks(1),
              direct.total * std::int64_t(sizeof(Real)));
}

}  // namespace

void graph_fusion_forward(const GraphFusionForward& args) {
  const DeviceGuard guard(args.device);
  const Edges edges = as_edges(args);
  if (!args.batch) return;
  with_floating(args.dtype, [&](auto element) {
    using T = decltype(element);
    const Wide wide = {
        rows_aligned<T>(args.features, {args.vertices}),
        rows_aligned<T>(args.edge_features, {args.edge_vertices, args.fused}),
    };
    with_team<typename Accumulated<T>::Real>(
        args, [&](auto team, auto staged, const Layout& layout, dim3 blocks, std::int64_t bytes) {
          launch("graph_fusion_forward", forward<T, decltype(team)::value, decltype(staged)::value>,
                 blocks, graph_threads, bytes, args.stream, args, layout, edges, wide);
        });
  });
}

void graph_fusion_backward(const GraphFusionBackward& args) {
  const DeviceGuard guard(args.device);
  const Edges edges = as_edges(args);
  if (!args.batch) return;
  with_floating(args.dtype, [&](auto element) {
    using T = decltype(element);
    const Wide wide = {
        rows_aligned<T>(args.features, {args.vertices, args.grad_vertices}),
        rows_aligned<T>(args.edge_features,
                        {args.edge_vertices, args.grad_fused, args.grad_edge_vertices}),
    };
    with_team<typename Accumulated<T>::Real>(args, [&](auto team, auto staged, const Layout& layout,
                                                       dim3 blocks, std::int64_t bytes) {
      launch("graph_fusion_backward", backward<T, decltype(team)::value, decltype(staged)::value>,
             blocks, graph_threads, bytes, args.stream, args, layout, edges, wide);
    });
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
