// Quadratic forms of per-task gradients in the Gram matrix of a layer's inputs.
#include "cpu/gram_tile.h"
#include "cpu/parallel.h"
#include "cpu/table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// sum over m <= n of weights[n, m] * <packed[n], packed[m]>.
template <class Real>
double lower_triangle(const Real* packed, const Real* weights, std::int64_t samples,
                      std::int64_t depth) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr std::int64_t length = packed_columns<Real>, width = Lanes<Real>::width;
  double sums[width] = {};
  for (std::int64_t first = 0; first < samples; first += panel_rows) {
    const std::int64_t last = std::min(first + panel_rows, samples);
    for (std::int64_t n = first; n < samples; n += tile_rows) {
      Vector total = {};
      for (std::int64_t m = first; m < std::min(last, n + tile_rows); m += tile_columns)
        multiply_tile(packed + n * length, packed + m * length, depth,
                      [&](std::int64_t r, std::int64_t c, Vector products) {
                        // Beyond the last row the products are 0, whatever weight they get.
                        const std::int64_t row = std::min(n + r, samples - 1);
                        const std::int64_t column = std::min(m + c, samples - 1);
                        total += weights[row * samples + column] * products;
                      });
      for (std::int64_t i = 0; i < width; ++i) sums[i] += double(total[i]);
    }
  }
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += sums[i];
  return sum;
}

template <class Real>
void squares(const GramSquares& args) {
  constexpr std::int64_t length = packed_columns<Real>;
  const std::int64_t blocks = (args.outputs + length - 1) / length;
  const std::int64_t items = args.tasks * blocks;
  Scratch<double> partial(items);
  parallel_for(items, args.threads, args.samples * args.samples * 4, [&](std::int64_t item) {
    const std::int64_t task = item / blocks, begin = item % blocks * length;
    const std::int64_t end = std::min(begin + length, args.outputs);
    const void* grads = at(args.grads, args.dtype, task * args.samples * args.outputs);
    Scratch<Real> packed(padded_rows(args.samples) * length);
    pack_rows(grads, args.dtype, args.samples, args.outputs, begin, end, packed.get());
    const Real* weights = static_cast<const Real*>(args.weights) + task * args.task_stride;
    partial[item] =
        lower_triangle(packed.get(), weights, args.samples, whole_vectors<Real>(end - begin));
  });
  Real* out = static_cast<Real*>(args.out);
  for (std::int64_t t = 0; t < args.tasks; ++t) {
    double sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += partial[t * blocks + b];
    out[t] = Real(2 * sum);
  }
}

}  // namespace

void gram_squares(const GramSquares& args) {
  with_accumulated(args.dtype, [&](auto real) { squares<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
