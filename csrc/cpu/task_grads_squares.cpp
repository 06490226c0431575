// Quadratic forms of per-task gradients in a triangular matrix.
#include "cpu/parallel.h"
#include "cpu/task_grads_strip.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// sum over m <= n of weights[n, m] * <strip[n], strip[m]>.
template <class Real>
double quadratic_form(const Real* strip,  // (samples + block_rows, strip_columns), zeros at the end
                      const Real* weights, std::int64_t samples) {
  using Vector = typename Lanes<Real>::Vector;
  double sum = 0;
  for (std::int64_t n = 0; n < samples; n += block_rows) {
    Vector total = {};
    const Real* rows = strip + n * strip_columns<Real>;
    multiply_strip(
        weights, samples, n, samples, strip, [&](std::int64_t r, std::int64_t v, Vector products) {
          total += load_vector(rows + r * strip_columns<Real> + v * Lanes<Real>::width) * products;
        });
    sum += double(sum_lanes<Real>(total));
  }
  return sum;
}

template <class Real>
void squares(const TaskGradsSquares& args) {
  constexpr std::int64_t width = strip_columns<Real>;
  const std::int64_t samples = args.samples, outputs = args.outputs;
  const std::int64_t strips = (outputs + width - 1) / width, items = args.tasks * strips;
  Scratch<double> partial(items);
  parallel_for(items, args.threads, samples * samples * width / 64 + 1, [&](std::int64_t item) {
    const std::int64_t task = item / strips, begin = item % strips * width;
    const std::int64_t matrix = args.matrices == 1 ? 0 : task;
    Scratch<Real> strip((samples + block_rows) * width);
    pack_strip(at(args.grads, args.dtype, task * samples * outputs), args.dtype, samples, outputs,
               begin, std::min(begin + width, outputs), Real(1), strip.get());
    const Real own = scale_of(largest_size(strip.get(), samples * width));
    divide_all(strip.get(), samples * width, own);
    std::fill(strip.get() + samples * width, strip.get() + (samples + block_rows) * width, Real(0));
    const Real* weights = static_cast<const Real*>(args.weights) + matrix * samples * samples;
    // In float64, where the two scales together may leave the range of Real.
    const double scale = double(own) * double(static_cast<const Real*>(args.scale)[matrix]);
    partial[item] = quadratic_form(strip.get(), weights, samples) * scale * scale;
  });
  for (std::int64_t t = 0; t < args.tasks; ++t) {
    double sum = 0;
    for (std::int64_t s = 0; s < strips; ++s) sum += partial[t * strips + s];
    args.out[t] = 2 * sum;
  }
}

}  // namespace

void task_grads_squares(const TaskGradsSquares& args) {
  with_accumulated(args.dtype, [&](auto real) { squares<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
