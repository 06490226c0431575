// The point of least norm in the convex hull of gradients, from their Gramian, by active sets:
// fastmtl/backends/reference/least_norm.py has the mathematics, and the same names.
#include "least_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/dense.h"
#include "cpu/memory.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

using Index = std::int64_t;
constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Real>
class Solver {
 public:
  explicit Solver(Index tasks) : tasks_(tasks), memory_((2 * tasks + 7) * tasks), free_(tasks) {
    double* next = memory_.get();
    for (double** array : {&norms_, &d_, &v_, &slope_, &direction_, &change_, &border_})
      *array = next, next += tasks;
    h_ = next;
    inverse_ = h_ + tasks * tasks;
  }

  // False where the Gramian is not finite.
  bool start(const Real* gramian) {
    for (Index i = 0; i < tasks_ * tasks_; ++i)
      if (!std::isfinite(gramian[i])) return false;
    for (Index t = 0; t < tasks_; ++t) {
      const double square = gramian[t * tasks_ + t];
      norms_[t] = square > 0 ? std::sqrt(square) : infinity;
    }
    const Index shortest = std::min_element(norms_, norms_ + tasks_) - norms_;
    for (Index t = 0; t < tasks_; ++t) d_[t] = present(t) ? norms_[shortest] / norms_[t] : 0;
    for (Index i = 0; i < tasks_; ++i) {
      for (Index j = 0; j < tasks_; ++j)
        h(i)[j] = gramian[i * tasks_ + j] / norms_[j] / norms_[i] + d_[i] * d_[j];
      h(i)[i] += least_norm_ridge<Real>;
      free_[i] = false;
      v_[i] = 0;
      slope_[i] = -d_[i];
    }
    std::fill_n(inverse_, tasks_ * tasks_, 0.0);
    if (!present(shortest)) return true;
    free_[shortest] = first_ = running_ = true;
    v_[shortest] = inverse(shortest)[shortest] = 1 / h(shortest)[shortest];
    add(v_[shortest], h(shortest), tasks_, slope_);
    return true;
  }

  void run(Index iterations) {
    for (Index i = 0; i < iterations && running_; ++i) running_ = step();
  }

  void store(Real* out) const {
    const double sum = std::max(dot(d_, v_, tasks_), std::numeric_limits<double>::min());
    for (Index t = 0; t < tasks_; ++t) out[t] = Real(d_[t] * v_[t] / sum);
  }

 private:
  double* h(Index i) { return h_ + i * tasks_; }
  double* inverse(Index i) { return inverse_ + i * tasks_; }
  bool present(Index i) const { return norms_[i] < infinity; }

  // False at the end.
  bool step() {
    double rest = 0, lowest = -least_norm_tolerance;
    Index entering = -1;
    for (Index t = 0; t < tasks_; ++t) {
      if (free_[t])
        rest = std::max(rest, std::abs(slope_[t]));
      else if (present(t) && slope_[t] < lowest)
        lowest = slope_[t], entering = t;
    }
    // Not before the free tasks are at their minimum, as far as that matters.
    if (entering >= 0 && -lowest > 100 * rest) {
      enter(entering);
    } else {
      entering = -1;
      if (rest <= least_norm_tolerance) {
        if (!first_) return false;
        first_ = false;
        add(-least_norm_ridge<Real>, v_, tasks_, slope_);
      }
    }
    const Index leaving = move();
    if (leaving >= 0) leave(leaving);
    // What a task would gain that enters and leaves at once is below rounding.
    return leaving != stuck && (leaving < 0 || leaving != entering);
  }

  static constexpr Index none = -1, stuck = -2;

  // Towards the minimum over the free tasks: the one whose weight ends it by reaching 0, or `none`.
  Index move() {
    std::fill_n(direction_, 2 * tasks_, 0.0);  // and change_, which lies behind it
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t]) add(-slope_[t], inverse(t), tasks_, direction_);
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t]) add(direction_[t], h(t), tasks_, change_);
    const double fall = -dot(slope_, direction_, tasks_);
    const double curvature = dot(direction_, change_, tasks_);
    const double best = curvature > 0 ? fall / curvature : infinity;
    double bound = infinity;
    Index leaving = none;
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t] && direction_[t] < 0 && -v_[t] / direction_[t] < bound)
        bound = -v_[t] / direction_[t], leaving = t;
    const double length = std::min(best, bound);
    if (!(fall > 0 && length < infinity)) return stuck;
    for (Index t = 0; t < tasks_; ++t) v_[t] = std::max(v_[t] + length * direction_[t], 0.0);
    add(length, change_, tasks_, slope_);
    return bound <= best ? leaving : none;
  }

  void enter(Index entering) {
    const double* column = h(entering);
    std::fill_n(border_, tasks_, 0.0);
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t]) add(column[t], inverse(t), tasks_, border_);
    border_[entering] -= 1;
    // Rounding errors of the Gramian can make it less than the ridge.
    const double pivot = std::max(-dot(border_, column, tasks_), least_norm_ridge<Real> / 2);
    free_[entering] = true;
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t]) add(border_[t] / pivot, border_, tasks_, inverse(t));
  }

  void leave(Index leaving) {
    std::copy_n(inverse(leaving), tasks_, border_);
    for (Index t = 0; t < tasks_; ++t) {
      if (!free_[t]) continue;
      add(-border_[t] / border_[leaving], border_, tasks_, inverse(t));
      inverse(t)[leaving] = 0;
    }
    std::fill_n(inverse(leaving), tasks_, 0.0);
    free_[leaving] = false;
    v_[leaving] = 0;
  }

  Index tasks_;
  Scratch<double> memory_;
  Scratch<bool> free_;
  double *norms_, *d_, *v_, *slope_;       // (T,)
  double *direction_, *change_, *border_;  // (T,)
  double *h_, *inverse_;                   // (T, T), 0 in the inverse where a task is not free
  bool first_ = false, running_ = false;   // whether the minimum is the one around 0
};

template <class Real>
void solve(const LeastNormWeights& args) {
  Solver<Real> solver(args.tasks);
  Real* out = static_cast<Real*>(args.out);
  if (!solver.start(static_cast<const Real*>(args.gramian))) {
    std::fill(out, out + args.tasks, std::numeric_limits<Real>::quiet_NaN());
    return;
  }
  solver.run(args.iterations);
  solver.store(out);
}

}  // namespace

void least_norm_weights(const LeastNormWeights& args) {
  if (!args.tasks) return;
  with_accumulated(args.dtype, [&](auto real) { solve<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
