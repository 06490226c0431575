// Edge weights of graph fusion, alone or together with the weighted sum that they are for.
//
// A team of threads (a warp, or a block of four) has one sample. Its vertices are copied into
// shared memory as they are, asynchronously and 16 bytes at a time, while the team works on the
// sample before, and become u = exp(V - max V) there. All dot products <u_a, u_b> come from 4 x 4
// tiles held in registers, so that shared memory is read at most three times for 12 vertices; edges
// then only look them up. Lanes side by side read 16 bytes side by side, which no two of them want
// from one bank at a time. Edge vertices are streamed once.
//
// Bytes that must move, for elements of s bytes: forward B (P D + E D' + D') s, backward
// B (2 P D + 2 E D' + D') s; without a fused vector D' = 0. The (B, E) and (B, P) terms are small.
#include "cuda/graph_fusion_edges.cuh"
#include "cuda/graph_fusion_sample.cuh"
#include "cuda/graph_fusion_vertices.cuh"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

const std::int64_t graph_fusion_edges = graph::most_edges;
const std::int64_t graph_fusion_vertices = graph::most_vertices;

namespace {

using graph::Edges, graph::Exponentials, graph::Layout, graph::Memory, graph::Staging, graph::Team,
    graph::Vertices, graph::block_threads;

// What 16-byte accesses may take in rows of vertices and of edge vertices.
struct Wide {
  bool vertices, edge_vertices;
};

// Calls body(b, vertices, done) for the samples of a team, whose vertices have arrived but for a
// barrier; body calls done() when the team has read them for the last time, after a barrier.
template <class T, class Team, bool staged, class Body>
__device__ void for_each_sample(const GraphFusion& args, const Layout& layout, bool wide,
                                const Memory<T>& memory, const Body& body) {
  const int count = int(args.vertex_count), features = int(args.features);
  const T* given = static_cast<const T*>(args.vertices);
  const std::int64_t size = std::int64_t(count) * features;
  const std::int64_t step = std::int64_t(gridDim.x) * Team::per_block;
  const auto begin = [&](std::int64_t b, Staging when) {
    if (staged && b < args.batch && when == layout.staging)
      graph::begin_copy<Team>(given + b * size, size, wide, memory.copy);
  };
  std::int64_t b = std::int64_t(blockIdx.x) * Team::per_block + Team::index();
  begin(b, layout.staging);
  for (; b < args.batch; b += step) {
    if (staged) __pipeline_wait_prior(0);
    const T* importance = static_cast<const T*>(args.importance) + b * count;
    for (int p = Team::thread(); p < count; p += Team::size)
      memory.importance[p] = widen<typename Accumulated<T>::Real>(importance[p]);
    const Vertices<T> vertices = {staged ? memory.copy : given + b * size, count, features};
    body(b, vertices, [&] { begin(b + step, Staging::ahead); });
    Team::sync();
    begin(b + step, Staging::in_turn);
  }
}

template <class T, class Team, bool staged>
__global__ void __launch_bounds__(block_threads, graph::resident_blocks)
    forward(const __grid_constant__ GraphFusionForward args, const __grid_constant__ Layout layout,
            const __grid_constant__ Edges edges, Wide wide) {
  using Real = typename Accumulated<T>::Real;
  const Memory<T> memory(layout, Team::index());
  const auto work = [&](std::int64_t b, const Vertices<T>& vertices, const auto& done) {
    const Exponentials<T, staged> exps = {vertices, memory.largest, memory.rows};
    Team::sync();
    graph::with_width<Real>(wide.vertices, [&](auto V) {
      graph::find_largest<Team, decltype(V)::value>(vertices, memory.largest);
      __syncwarp();
      graph::exponentiate<Team, decltype(V)::value>(exps);
    });
    Team::sync();
    done();
    graph::with_width<Real>(wide.vertices, [&](auto V) {
      graph::multiply_pairs<Team, decltype(V)::value>(exps, memory.square, memory.scratch);
    });
    Team::sync();
    if (Team::warp() == 0) {
      graph::find_cosines(edges, memory.square, memory.cosine);
      graph::find_weights(edges, memory.importance, memory.cosine, Real(args.theta), memory.weight);
    }
    Team::sync();

    Real* stats = static_cast<Real*>(args.stats) + b * (edges.count + 2 * layout.vertices);
    T* weights = static_cast<T*>(args.weights) + b * edges.count;
    for (int e = Team::thread(); e < edges.count; e += Team::size) {
      stats[e] = memory.cosine[e];
      weights[e] = narrow<T>(memory.weight[e]);
    }
    for (int p = Team::thread(); p < layout.vertices; p += Team::size) {
      stats[edges.count + p] = memory.largest[p];
      stats[edges.count + layout.vertices + p] = memory.square(p, p);
    }
    if (args.fused) {
      const std::int64_t width = args.edge_features;
      const T* from = static_cast<const T*>(args.edge_vertices) + b * edges.count * width;
      T* to = static_cast<T*>(args.fused) + b * width;
      graph::with_width<T>(wide.edge_vertices, [&](auto V) {
        graph::fuse<Team, decltype(V)::value>(edges.count, width, memory.weight, from, to);
      });
    }
  };
  for_each_sample<T, Team, staged>(args, layout, wide.vertices, memory, work);
}

template <class T, class Team, bool staged>
__global__ void __launch_bounds__(block_threads, graph::resident_blocks)
    backward(const __grid_constant__ GraphFusionBackward args,
             const __grid_constant__ Layout layout, const __grid_constant__ Edges edges,
             Wide wide) {
  using Real = typename Accumulated<T>::Real;
  const Memory<T> memory(layout, Team::index());
  const auto work = [&](std::int64_t b, const Vertices<T>& vertices, const auto& done) {
    const Real* stats =
        static_cast<const Real*>(args.stats) + b * (edges.count + 2 * layout.vertices);
    const Exponentials<T, staged> exps = {vertices, memory.largest, memory.rows};
    for (int p = Team::thread(); p < layout.vertices; p += Team::size)
      memory.largest[p] = stats[edges.count + p];
    for (int e = Team::thread(); e < edges.count; e += Team::size) {
      memory.cosine[e] = stats[e];
      memory.grad[e] =
          args.grad_weights
              ? widen<Real>(static_cast<const T*>(args.grad_weights)[b * edges.count + e])
              : Real(0);
    }
    Team::sync();
    graph::with_width<Real>(wide.vertices,
                            [&](auto V) { graph::exponentiate<Team, decltype(V)::value>(exps); });
    if (Team::warp() == 0)
      graph::find_weights(edges, memory.importance, memory.cosine, Real(args.theta), memory.weight);
    Team::sync();
    done();
    if (args.grad_fused) {
      const std::int64_t width = args.edge_features, begin = b * edges.count * width;
      const T* from = static_cast<const T*>(args.edge_vertices) + begin;
      const T* grad_fused = static_cast<const T*>(args.grad_fused) + b * width;
      T* to = static_cast<T*>(args.grad_edge_vertices) + begin;
      graph::with_width<T>(wide.edge_vertices, [&](auto V) {
        graph::fusion_gradient<Team, decltype(V)::value>(edges.count, width, memory.weight, from,
                                                         grad_fused, to, memory.grad);
      });
      Team::sync();
    }
    if (Team::warp() == 0)
      graph::edge_gradient(edges, memory.importance, memory.cosine, Real(args.theta), memory.grad,
                           memory.weight);
    Team::sync();
    graph::mix_vertices<Team>(edges, layout, memory.cosine, memory.grad, memory.weight,
                              stats + edges.count + layout.vertices, memory.square,
                              static_cast<T*>(args.grad_importance) + b * layout.vertices);
    Team::sync();
    T* to = static_cast<T*>(args.grad_vertices) + b * layout.vertices * args.features;
    graph::with_width<Real>(wide.vertices, [&](auto V) {
      graph::vertex_gradient<Team, decltype(V)::value>(exps, memory.square, to);
    });
  };
  for_each_sample<T, Team, staged>(args, layout, wide.vertices, memory, work);
}

Edges as_edges(const GraphFusion& args) {
  if (args.edge_count > graph::most_edges || args.vertex_count > graph::most_vertices)
    throw std::invalid_argument("fastmtl: the CUDA kernels take at most " +
                                std::to_string(graph::most_edges) + " edges of " +
                                std::to_string(graph::most_vertices) + " vertices");
  Edges edges = {};
  edges.count = std::int32_t(args.edge_count);
  for (std::int64_t e = 0; e < 2 * args.edge_count; ++e)
    edges.end[e / 2][e % 2] = std::uint16_t(args.edges[e]);
  return edges;
}

template <class T>
bool rows_aligned(std::int64_t width, std::initializer_list<const void*> pointers) {
  return width % widest<T> == 0 && std::all_of(pointers.begin(), pointers.end(), aligned);
}

// Calls launch_team(team, staged, layout, blocks, shared bytes) with the team that suits a sample.
template <class T, class Body>
void with_team(const GraphFusion& args, const Body& launch_team) {
  using Real = typename Accumulated<T>::Real;
  using Warp = Team<warp_size>;
  using Block = Team<block_threads>;
  // Four samples to a block, and several blocks to a multiprocessor.
  constexpr std::int64_t small = 16 << 10, large = 112 << 10;
  const auto blocks = [&](std::int64_t samples) {
    constexpr std::int64_t blocks_a_multiprocessor = 32;
    return dim3(unsigned(
        std::max<std::int64_t>(std::min<std::int64_t>(divide_up(args.batch, samples),
                                                      blocks_a_multiprocessor * multiprocessors()),
                               1)));
  };
  const auto bytes = [](const Layout& layout) { return layout.total * std::int64_t(sizeof(Real)); };
  const std::int64_t most = std::min<std::int64_t>(large, most_shared_bytes());
  for (const Staging staging : {Staging::ahead, Staging::in_turn}) {
    const Layout layout(args, staging, sizeof(T), sizeof(Real));
    if (bytes(layout) <= std::min(small, most / Warp::per_block))
      return launch_team(Warp{}, std::true_type{}, layout, blocks(Warp::per_block),
                         Warp::per_block * bytes(layout));
    if (bytes(layout) <= most)
      return launch_team(Block{}, std::true_type{}, layout, blocks(1), bytes(layout));
  }
  const Layout layout(args, Staging::none, sizeof(T), sizeof(Real));
  launch_team(Block{}, std::false_type{}, layout, blocks(1), bytes(layout));
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
    with_team<T>(
        args, [&](auto team, auto staged, const Layout& layout, dim3 blocks, std::int64_t bytes) {
          launch("graph_fusion_forward", forward<T, decltype(team), decltype(staged)::value>,
                 blocks, block_threads, bytes, args.stream, args, layout, edges, wide);
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
    with_team<T>(
        args, [&](auto team, auto staged, const Layout& layout, dim3 blocks, std::int64_t bytes) {
          launch("graph_fusion_backward", backward<T, decltype(team), decltype(staged)::value>,
                 blocks, block_threads, bytes, args.stream, args, layout, edges, wide);
        });
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
