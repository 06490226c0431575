// Row-wise reductions and scalings that stand between matrix products.
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr std::int64_t chunk = 16384;  // elements of a partial sum
constexpr std::int64_t block = 512;    // elements converted at a time
constexpr std::int64_t cheap = 8;      // elements that take as long as one exp

template <class Real>
double dot(const Matrix& a, const Matrix& b, std::int64_t row, std::int64_t begin,
           std::int64_t end) {
  Real buffer_a[block], buffer_b[block];
  double sum = 0;
  for (std::int64_t i = begin; i < end; i += block) {
    const std::int64_t count = std::min(block, end - i);
    const Real* x = load(at(a.data, a.dtype, row * a.row_stride + i), a.dtype, count, buffer_a);
    const Real* y = load(at(b.data, b.dtype, row * b.row_stride + i), b.dtype, count, buffer_b);
#pragma omp simd reduction(+ : sum)
    for (std::int64_t k = 0; k < count; ++k) sum += double(x[k]) * double(y[k]);
  }
  return sum;
}

template <class Real>
void dots(const RowDots& args) {
  const std::int64_t chunks = std::max<std::int64_t>((args.columns + chunk - 1) / chunk, 1);
  Scratch<double> partial(args.rows * chunks);
  const std::int64_t cost = std::min(args.columns, chunk) / cheap;
  parallel_for(args.rows * chunks, args.threads, cost, [&](std::int64_t item) {
    const std::int64_t begin = item % chunks * chunk;
    partial[item] =
        dot<Real>(args.a, args.b, item / chunks, begin, std::min(begin + chunk, args.columns));
  });
  for (std::int64_t r = 0; r < args.rows; ++r) {
    double sum = args.accumulate ? args.out[r] : 0;
    for (std::int64_t c = 0; c < chunks; ++c) sum += partial[r * chunks + c];
    args.out[r] = sum;
  }
}

template <class Real>
void scale(const ScaleRows& args) {
  const std::int64_t chunks = (args.columns + chunk - 1) / chunk;
  const Real* factor = static_cast<const Real*>(args.factor);
  const DType dtype = args.a.dtype;
  const std::int64_t cost = std::min(args.columns, chunk) / cheap;
  parallel_for(args.rows * chunks, args.threads, cost, [&](std::int64_t item) {
    Real buffer[block], result[block];
    const std::int64_t row = item / chunks, begin = item % chunks * chunk;
    const std::int64_t end = std::min(begin + chunk, args.columns);
    for (std::int64_t i = begin; i < end; i += block) {
      const std::int64_t count = std::min(block, end - i);
      const Real* x =
          load(at(args.a.data, dtype, row * args.a.row_stride + i), dtype, count, buffer);
#pragma omp simd
      for (std::int64_t k = 0; k < count; ++k) result[k] = factor[row] * x[k];
      store(result, at(args.out, dtype, row * args.columns + i), dtype, count);
    }
  });
}

}  // namespace

void row_dots(const RowDots& args) {
  with_accumulated(args.a.dtype, [&](auto real) { dots<decltype(real)>(args); });
}

void scale_rows(const ScaleRows& args) {
  with_accumulated(args.a.dtype, [&](auto real) { scale<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
