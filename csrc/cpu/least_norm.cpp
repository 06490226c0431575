// The point of least norm in the convex hull of gradients, from their Gramian.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/memory.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

struct Problem {
  std::int64_t tasks;
  double* gramian;    // (T, T), scaled: its largest diagonal entry is 1
  double* distances;  // (T, T): ||g_a - g_b||^2
  double* weights;    // (T,)
  double* slope;      // (T,): gramian @ weights

  bool present(std::int64_t t) const { return gramian[t * tasks + t] > 0; }
};

// The weight that task a gives to task b: as much as is best, and at most all that it has.
inline double moved(const Problem& p, std::int64_t b, std::int64_t a) {
  const double distance = p.distances[b * p.tasks + a];
  // Without a distance the gradients are equal, and there is nothing to gain.
  const double best = distance > 0 ? (p.slope[a] - p.slope[b]) / distance : 0;
  return std::min(std::max(best, 0.0), p.weights[a]);
}

// By how much c^T S c / 2 falls for it.
inline double gain(const Problem& p, std::int64_t b, std::int64_t a) {
  const double t = moved(p, b, a);
  return t * (p.slope[a] - p.slope[b] - t * p.distances[b * p.tasks + a] / 2);
}

// False where the Gramian is not finite.
template <class Real>
bool begin(const Real* gramian, Problem& p) {
  const std::int64_t tasks = p.tasks;
  double largest = std::numeric_limits<double>::min(), present = 0;
  for (std::int64_t t = 0; t < tasks; ++t) {
    largest = std::max(largest, double(gramian[t * tasks + t]));
    present += gramian[t * tasks + t] > 0;
  }
  for (std::int64_t i = 0; i < tasks * tasks; ++i) {
    if (!std::isfinite(gramian[i])) return false;
    p.gramian[i] = gramian[i] / largest;
  }
  for (std::int64_t b = 0; b < tasks; ++b) p.weights[b] = p.present(b) ? 1 / present : 0;
  for (std::int64_t b = 0; b < tasks; ++b) {
    const double* row = p.gramian + b * tasks;
    p.slope[b] = 0;
    for (std::int64_t a = 0; a < tasks; ++a) {
      p.slope[b] += row[a] * p.weights[a];
      p.distances[b * tasks + a] = std::max(row[b] + p.gramian[a * tasks + a] - 2 * row[a], 0.0);
    }
  }
  return true;
}

// Moves weight between the two tasks where that gains most; false where nothing gains.
bool step(Problem& p) {
  double most = 0;
  std::int64_t to = -1, from = -1;
  for (std::int64_t b = 0; b < p.tasks; ++b) {
    if (!p.present(b)) continue;
    double most_to_b = 0;
#pragma omp simd reduction(max : most_to_b)
    for (std::int64_t a = 0; a < p.tasks; ++a) most_to_b = std::max(most_to_b, gain(p, b, a));
    if (most_to_b > most) most = most_to_b, to = b;
  }
  if (to < 0) return false;
  most = 0;
  for (std::int64_t a = 0; a < p.tasks; ++a)
    if (const double value = gain(p, to, a); value > most) most = value, from = a;
  const double weight = moved(p, to, from);
  p.weights[to] += weight;
  p.weights[from] -= weight;
  for (std::int64_t t = 0; t < p.tasks; ++t)
    p.slope[t] += weight * (p.gramian[to * p.tasks + t] - p.gramian[from * p.tasks + t]);
  return true;
}

template <class Real>
void solve(const LeastNormWeights& args) {
  const std::int64_t tasks = args.tasks;
  Scratch<double> gramian(tasks * tasks), distances(tasks * tasks), weights(tasks), slope(tasks);
  Problem problem = {tasks, gramian.get(), distances.get(), weights.get(), slope.get()};
  Real* out = static_cast<Real*>(args.out);
  if (!begin(static_cast<const Real*>(args.gramian), problem)) {
    std::fill(out, out + tasks, std::numeric_limits<Real>::quiet_NaN());
    return;
  }
  for (std::int64_t i = 0; i < args.iterations && step(problem); ++i) {
  }
  std::copy(problem.weights, problem.weights + tasks, out);
}

}  // namespace

void least_norm_weights(const LeastNormWeights& args) {
  with_accumulated(args.dtype, [&](auto real) { solve<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
