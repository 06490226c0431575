// The minimum of v^T H v / 2 + q^T v over v >= 0, for several q: by exchanging tasks between those
// with v > 0 and those with v = 0 in blocks (block principal pivoting, Judice and Pires 1994),
// which solves a few systems in the free ones; where the solution is not one point, or hardly so,
// by interior points, as fastmtl/backends/reference/nonnegative_qp.py has it, with the same names.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/dense.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

using Index = std::int64_t;

constexpr int most_exchanges = 100;
// What is left of a diagonal of 1 in a factorisation of independent columns, and how far from 0 the
// multipliers of tasks with v = 0 are where these are told from the others.
constexpr double least_pivot = 1e-7, least_multiplier = 1e-9;
constexpr double zero = 1e-13;
constexpr int most_iterations = 30;
constexpr double tolerance = 1e-15;
constexpr double nearly_all = 0.995;  // of the way to the boundary

class Solver {
 public:
  Solver(const double* matrix, Index tasks)
      : h_(matrix), tasks_(tasks), memory_((tasks + 8) * tasks), free_(tasks), order_(tasks) {
    double* next = memory_.get();
    for (double** array : {&q_, &v_, &slack_, &x_, &residual_, &step_, &slack_step_, &right_})
      *array = next, next += tasks;
    factor_ = next;
  }

  void solve(const double* linear, double* out) {
    double scale = 0;
    for (Index t = 0; t < tasks_; ++t) scale = std::max(scale, std::abs(linear[t]));
    for (Index t = 0; t < tasks_; ++t) q_[t] = scale > 0 ? linear[t] / scale : 0;
    if (!by_exchanges()) by_interior_points();
    for (Index t = 0; t < tasks_; ++t) out[t] = scale * v_[t];
  }

 private:
  const double* h(Index i) const { return h_ + i * tasks_; }
  double* factor(Index i) { return factor_ + i * tasks_; }

  // False where it has not found a minimum that is clearly one point.
  bool by_exchanges() {
    std::fill_n(free_.get(), tasks_, false);
    std::fill_n(v_, tasks_, 0.0);
    std::copy_n(q_, tasks_, slack_);
    Index fewest = tasks_ + 1;
    int patience = 3;
    for (int i = 0; i < most_exchanges; ++i) {
      Index wrong = 0, last = 0;
      for (Index t = 0; t < tasks_; ++t)
        if (is_wrong(t)) ++wrong, last = t;
      if (!wrong) return is_one_point();
      // All at once as long as that gets somewhere, else the last one alone, which always ends.
      if (wrong < fewest) fewest = wrong, patience = 3;
      const bool all = patience-- > 0;
      for (Index t = all ? 0 : last; t <= last; ++t)
        if (is_wrong(t)) free_[t] = !free_[t];
      if (!minimise_over_free()) return false;
    }
    return false;
  }

  bool is_wrong(Index t) { return free_[t] ? v_[t] < 0 : slack_[t] < -zero; }

  bool is_one_point() {
    for (Index t = 0; t < tasks_; ++t)
      if (!free_[t] && slack_[t] < least_multiplier) return false;
    return true;
  }

  bool minimise_over_free() {
    Index count = 0;
    for (Index t = 0; t < tasks_; ++t)
      if (free_[t]) order_[count++] = t;
    for (Index i = 0; i < count; ++i) {
      const double* row = h(order_[i]);
      for (Index j = 0; j <= i; ++j) factor(i)[j] = row[order_[j]];
      x_[i] = -q_[order_[i]];
    }
    if (factorise(count) < least_pivot) return false;
    substitute(count, x_);
    std::fill_n(v_, tasks_, 0.0);
    std::copy_n(q_, tasks_, slack_);
    for (Index i = 0; i < count; ++i) {
      v_[order_[i]] = x_[i];
      add(x_[i], h(order_[i]), tasks_, slack_);
    }
    for (Index i = 0; i < count; ++i) slack_[order_[i]] = 0;
    return true;
  }

  // The lower triangle in place, and the least square on its diagonal.
  double factorise(Index count) {
    double least = std::numeric_limits<double>::infinity();
    for (Index i = 0; i < count; ++i) {
      double* row = factor(i);
      for (Index j = 0; j < i; ++j) row[j] = (row[j] - dot(row, factor(j), j)) / factor(j)[j];
      const double square = row[i] - dot(row, row, i);
      least = std::min(least, square);
      row[i] = std::sqrt(std::max(square, std::numeric_limits<double>::min()));
    }
    return least;
  }

  void substitute(Index count, double* x) {
    for (Index i = 0; i < count; ++i) x[i] = (x[i] - dot(factor(i), x, i)) / factor(i)[i];
    for (Index i = count - 1; i >= 0; --i) {
      x[i] /= factor(i)[i];
      add(-x[i], factor(i), i, x);
    }
  }

  void by_interior_points() {
    std::fill_n(v_, tasks_, 1.0);
    std::fill_n(slack_, tasks_, 1.0);
    for (int i = 0; i < most_iterations; ++i) {
      double error = 0;
      for (Index t = 0; t < tasks_; ++t) {
        residual_[t] = dot(h(t), v_, tasks_) + q_[t] - slack_[t];
        error = std::max(error, std::abs(residual_[t]));
      }
      const double gap = dot(v_, slack_, tasks_) / double(tasks_);
      if (gap < tolerance && error < 100 * tolerance) return;
      for (Index t = 0; t < tasks_; ++t) {
        std::copy_n(h(t), t + 1, factor(t));
        factor(t)[t] += slack_[t] / v_[t];
        right_[t] = 0;
      }
      factorise(tasks_);
      find_step();
      const double length = bound(1.0);
      double predicted = 0;
      for (Index t = 0; t < tasks_; ++t)
        predicted += (v_[t] + length * step_[t]) * (slack_[t] + length * slack_step_[t]);
      predicted /= double(tasks_);
      const double centre = std::pow(predicted / gap, 3) * gap;
      for (Index t = 0; t < tasks_; ++t) right_[t] = (centre - step_[t] * slack_step_[t]) / v_[t];
      find_step();
      double sum = 0;
      for (Index t = 0; t < tasks_; ++t) sum += step_[t] + slack_step_[t];
      if (!std::isfinite(sum)) return;
      move(bound(nearly_all));
    }
  }

  // Towards the point at which v slack is what `right_` says of it.
  void find_step() {
    for (Index t = 0; t < tasks_; ++t) step_[t] = right_[t] - residual_[t] - slack_[t];
    substitute(tasks_, step_);
    for (Index t = 0; t < tasks_; ++t)
      slack_step_[t] = right_[t] - slack_[t] - slack_[t] / v_[t] * step_[t];
  }

  // How far both can go until one is 0, at most 1.
  double bound(double part) const {
    double least = std::numeric_limits<double>::infinity();
    for (Index t = 0; t < tasks_; ++t) {
      if (step_[t] < 0) least = std::min(least, -v_[t] / step_[t]);
      if (slack_step_[t] < 0) least = std::min(least, -slack_[t] / slack_step_[t]);
    }
    return std::min(part * least, 1.0);
  }

  // Neither reaches 0, by which the next iteration divides.
  void move(double length) {
    for (Index t = 0; t < tasks_; ++t) {
      v_[t] = std::max(v_[t] + length * step_[t], 1e-280);
      slack_[t] = std::max(slack_[t] + length * slack_step_[t], 1e-280);
    }
  }

  const double* h_;  // (T, T), diagonal 1
  Index tasks_;
  Scratch<double> memory_;
  Scratch<bool> free_;
  Scratch<Index> order_;                             // of the free ones
  double *q_, *v_, *slack_, *x_;                     // (T,)
  double *residual_, *step_, *slack_step_, *right_;  // (T,)
  double* factor_;                                   // (T, T)
};

}  // namespace

void nonnegative_qp(const NonnegativeQP& args) {
  const Index tasks = args.tasks;
  // A thread's problems follow each other, so that it has one memory for all.
  const Index runs = std::min<Index>(args.problems, args.threads);
  if (!runs || !tasks) return;
  const Index cost = args.problems / runs * tasks * tasks;
  parallel_for(runs, args.threads, cost, [&](Index run) {
    Solver solver(args.matrix, tasks);
    for (Index i = run * args.problems / runs; i < (run + 1) * args.problems / runs; ++i)
      solver.solve(args.linear + i * tasks, args.out + i * tasks);
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
