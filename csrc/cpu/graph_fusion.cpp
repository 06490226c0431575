// Edge weights of graph fusion, alone or together with the weighted sum that they are for.
//
// With u = exp(V - max V) a sample's cosines are S_ab = <u_a, u_b> / (|u_a| |u_b|). A sample fits
// in the first-level cache, so it is read once in either direction and samples go to the threads.
#include <cmath>
#include <limits>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr std::int64_t samples_per_item = 16;

template <class Real>
Real dot(const Real* a, const Real* b, std::int64_t count) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// u = exp(v - max v); returns the maximum.
template <class Real>
Real shifted_exp(const Real* v, std::int64_t count, Real* u) {
  Real largest = v[0];
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) largest = v[i] > largest ? v[i] : largest;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) u[i] = exp_nonpositive(v[i] - largest);
  return largest;
}

// One thread's view of a sample, in the type that it computes in.
template <class Real>
class Sample {
 public:
  explicit Sample(const GraphFusion& args)
      : args_(args),
        row_(std::max(args.features, args.edge_features)),
        exps_(args.vertex_count * args.features),
        importance_(args.vertex_count),
        weights_(args.edge_count) {}

  // Loads the importance of a sample.
  void start(std::int64_t sample) {
    sample_ = sample;
    const std::int64_t count = args_.vertex_count;
    const Real* from = load(at(args_.importance, args_.dtype, sample * count), args_.dtype, count,
                            importance_.get());
    if (from != importance_.get()) std::copy_n(from, count, importance_.get());
  }

  // One vertex, (D,).
  const Real* vertex(std::int64_t p) {
    const std::int64_t index = (sample_ * args_.vertex_count + p) * args_.features;
    return load(at(args_.vertices, args_.dtype, index), args_.dtype, args_.features, row_.get());
  }

  // One edge vertex, (D',).
  const Real* edge_vertex(std::int64_t e) {
    const std::int64_t index = (sample_ * args_.edge_count + e) * args_.edge_features;
    return load(at(args_.edge_vertices, args_.dtype, index), args_.dtype, args_.edge_features,
                row_.get());
  }

  Real* exps(std::int64_t p) { return exps_.get() + p * args_.features; }
  Real importance(std::int64_t e) {
    return importance_[args_.edges[2 * e]] + importance_[args_.edges[2 * e + 1]];
  }

  // Softmax over the edges of (w_a + w_b) / (S_ab + theta).
  const Real* edge_weights(const Real* cosine) {
    Real largest = std::numeric_limits<Real>::lowest(), sum = 0;
    for (std::int64_t e = 0; e < args_.edge_count; ++e) {
      weights_[e] = importance(e) / (cosine[e] + Real(args_.theta));
      largest = weights_[e] > largest ? weights_[e] : largest;
    }
    for (std::int64_t e = 0; e < args_.edge_count; ++e)
      sum += weights_[e] = exp_nonpositive(weights_[e] - largest);
    for (std::int64_t e = 0; e < args_.edge_count; ++e) weights_[e] /= sum;
    return weights_.get();
  }

 private:
  const GraphFusion& args_;
  std::int64_t sample_ = 0;
  Scratch<Real> row_, exps_, importance_, weights_;
};

template <class Body>
void for_each_item(const GraphFusion& args, const Body& body) {
  const std::int64_t items = (args.batch + samples_per_item - 1) / samples_per_item;
  const std::int64_t cost = std::min(samples_per_item, args.batch) * args.vertex_count *
                            (args.features + args.edge_features / 4);
  parallel_for(items, args.threads, cost, [&](std::int64_t item) {
    const std::int64_t begin = item * samples_per_item;
    body(begin, std::min(begin + samples_per_item, args.batch));
  });
}

template <class Real>
void forward_sample(const GraphFusionForward& args, std::int64_t b, Sample<Real>& sample,
                    Real* fused) {
  const std::int64_t vertices = args.vertex_count, edges = args.edge_count;
  Real* cosine = static_cast<Real*>(args.stats) + b * (edges + 2 * vertices);
  Real* largest = cosine + edges;
  Real* squares = largest + vertices;
  sample.start(b);
  for (std::int64_t p = 0; p < vertices; ++p) {
    largest[p] = shifted_exp(sample.vertex(p), args.features, sample.exps(p));
    squares[p] = dot(sample.exps(p), sample.exps(p), args.features);
  }
  for (std::int64_t e = 0; e < edges; ++e) {
    const std::int64_t i = args.edges[2 * e], j = args.edges[2 * e + 1];
    cosine[e] =
        dot(sample.exps(i), sample.exps(j), args.features) / std::sqrt(squares[i] * squares[j]);
  }
  const Real* weights = sample.edge_weights(cosine);
  store(weights, at(args.weights, args.dtype, b * edges), args.dtype, edges);
  if (!args.fused) return;

  const std::int64_t width = args.edge_features;
  std::fill_n(fused, width, Real(0));
  for (std::int64_t e = 0; e < edges; ++e) {
    const Real* v = sample.edge_vertex(e);
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) fused[i] += weights[e] * v[i];
  }
  store(fused, at(args.fused, args.dtype, b * width), args.dtype, width);
}

template <class Real>
void forward(const GraphFusionForward& args) {
  for_each_item(args, [&](std::int64_t begin, std::int64_t end) {
    Sample<Real> sample(args);
    Scratch<Real> fused(args.edge_features);
    for (std::int64_t b = begin; b < end; ++b) forward_sample(args, b, sample, fused.get());
  });
}

// Working memory of the backward pass for one sample.
template <class Real>
struct Gradients {
  explicit Gradients(const GraphFusion& args)
      : edge(args.edge_count),
        incoming(args.edge_count),
        importance(args.vertex_count),
        mixing(args.vertex_count * args.vertex_count),
        row(std::max(args.features, args.edge_features)),
        fused(args.edge_features) {}

  Scratch<Real> edge;        // (E,) with respect to the edge weights
  Scratch<Real> incoming;    // (E,) as the caller gave it
  Scratch<Real> importance;  // (P,)
  Scratch<Real> mixing;      // (P, P): grad of V_p is u_p * sum_r mixing[p, r] u_r
  Scratch<Real> row, fused;
};

// Gradient of the weights through the weighted sum, and of the edge vertices.
template <class Real>
void fusion_gradient(const GraphFusionBackward& args, std::int64_t b, const Real* weights,
                     Sample<Real>& sample, Gradients<Real>& grad) {
  const std::int64_t width = args.edge_features;
  const Real* fused =
      load(at(args.grad_fused, args.dtype, b * width), args.dtype, width, grad.fused.get());
  Real* row = grad.row.get();
  for (std::int64_t e = 0; e < args.edge_count; ++e) {
    const Real weight = weights[e];
    grad.edge[e] += dot(sample.edge_vertex(e), fused, width);
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) row[i] = weight * fused[i];
    store(row, at(args.grad_edge_vertices, args.dtype, (b * args.edge_count + e) * width),
          args.dtype, width);
  }
}

// From the gradient of the weights to that of the importance, and the mixing matrix.
template <class Real>
void edge_gradient(const GraphFusionBackward& args, const Real* weights, const Real* stats,
                   Sample<Real>& sample, Gradients<Real>& grad) {
  const std::int64_t vertices = args.vertex_count, edges = args.edge_count;
  const Real* cosine = stats;
  const Real* squares = stats + edges + vertices;
  const Real mean = dot(weights, grad.edge.get(), edges);
  std::fill_n(grad.importance.get(), vertices, Real(0));
  std::fill_n(grad.mixing.get(), vertices * vertices, Real(0));
  for (std::int64_t e = 0; e < edges; ++e) {
    const std::int64_t i = args.edges[2 * e], j = args.edges[2 * e + 1];
    const Real ratio = weights[e] * (grad.edge[e] - mean) / (cosine[e] + Real(args.theta));
    grad.importance[i] += ratio;
    grad.importance[j] += ratio;
    const Real slope = -ratio * sample.importance(e) / (cosine[e] + Real(args.theta));
    const Real cross = slope / std::sqrt(squares[i] * squares[j]);
    grad.mixing[i * vertices + j] += cross;
    grad.mixing[j * vertices + i] += cross;
    grad.mixing[i * vertices + i] -= slope * cosine[e] / squares[i];
    grad.mixing[j * vertices + j] -= slope * cosine[e] / squares[j];
  }
}

template <class Real>
void vertex_gradient(const GraphFusionBackward& args, std::int64_t b, const Real* largest,
                     Sample<Real>& sample, Gradients<Real>& grad) {
  const std::int64_t vertices = args.vertex_count, width = args.features;
  for (std::int64_t p = 0; p < vertices; ++p) {
    const Real* v = sample.vertex(p);
    Real* u = sample.exps(p);
    const Real shift = largest[p];
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) u[i] = exp_nonpositive(v[i] - shift);
  }
  Real* row = grad.row.get();
  for (std::int64_t p = 0; p < vertices; ++p) {
    std::fill_n(row, width, Real(0));
    for (std::int64_t r = 0; r < vertices; ++r) {
      const Real factor = grad.mixing[p * vertices + r];
      if (factor == 0) continue;
      const Real* u = sample.exps(r);
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) row[i] += factor * u[i];
    }
    const Real* u = sample.exps(p);
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) row[i] *= u[i];
    store(row, at(args.grad_vertices, args.dtype, (b * vertices + p) * width), args.dtype, width);
  }
}

template <class Real>
void backward_sample(const GraphFusionBackward& args, std::int64_t b, Sample<Real>& sample,
                     Gradients<Real>& grad) {
  const std::int64_t vertices = args.vertex_count, edges = args.edge_count;
  const Real* stats = static_cast<const Real*>(args.stats) + b * (edges + 2 * vertices);
  sample.start(b);
  const Real* weights = sample.edge_weights(stats);
  if (args.grad_weights) {
    const Real* from =
        load(at(args.grad_weights, args.dtype, b * edges), args.dtype, edges, grad.incoming.get());
    std::copy_n(from, edges, grad.edge.get());
  } else {
    std::fill_n(grad.edge.get(), edges, Real(0));
  }
  if (args.grad_fused) fusion_gradient(args, b, weights, sample, grad);
  edge_gradient(args, weights, stats, sample, grad);
  store(grad.importance.get(), at(args.grad_importance, args.dtype, b * vertices), args.dtype,
        vertices);
  vertex_gradient(args, b, stats + edges, sample, grad);
}

template <class Real>
void backward(const GraphFusionBackward& args) {
  for_each_item(args, [&](std::int64_t begin, std::int64_t end) {
    Sample<Real> sample(args);
    Gradients<Real> grad(args);
    for (std::int64_t b = begin; b < end; ++b) backward_sample(args, b, sample, grad);
  });
}

}  // namespace

void graph_fusion_forward(const GraphFusionForward& args) {
  with_accumulated(args.dtype, [&](auto real) { forward<decltype(real)>(args); });
}

void graph_fusion_backward(const GraphFusionBackward& args) {
  with_accumulated(args.dtype, [&](auto real) { backward<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
