// Products of a triangular matrix with the gradients of every task.
#include <algorithm>
#include <cstring>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/table.h"
#include "cpu/vector.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// A tile of accumulators fills the registers, but for the vectors that are multiplied.
constexpr int tile_rows = vector_bytes == 64 ? 12 : 6;
constexpr int tile_vectors = 2;

template <class Real>
constexpr std::int64_t panel = tile_vectors * Lanes<Real>::width;  // columns of d

// tile[r] = sum over m < depth of weights[r][m] * packed[m].
template <class Real>
inline void multiply_tile(const Real* const (&weights)[tile_rows],
                          const Real* packed,  // (depth, panel)
                          std::int64_t depth, Real (*tile)[panel<Real>]) {
  using Vector = typename Lanes<Real>::Vector;
  Vector sums[tile_rows][tile_vectors] = {};
  for (std::int64_t m = 0; m < depth; ++m) {
    Vector values[tile_vectors];
    for (int v = 0; v < tile_vectors; ++v)
      values[v] = load_vector(packed + m * panel<Real> + v * Lanes<Real>::width);
    for (int r = 0; r < tile_rows; ++r)
      for (int v = 0; v < tile_vectors; ++v) sums[r][v] += weights[r][m] * values[v];
  }
  std::memcpy(tile, sums, sizeof(sums));
}

template <class Real>
void products(const GramProducts& args) {
  const std::int64_t width = panel<Real>, rows = args.row_end - args.row_begin;
  const std::int64_t panels = (args.outputs + width - 1) / width;
  const std::int64_t cost = rows * args.row_end;
  const Real* weights = static_cast<const Real*>(args.weights);
  parallel_for(args.tasks * panels, args.threads, cost, [&](std::int64_t item) {
    const std::int64_t task = item / panels, column = item % panels * width;
    const std::int64_t count = std::min(width, args.outputs - column);
    Scratch<Real> packed(args.row_end * width);
    for (std::int64_t m = 0; m < args.row_end; ++m) {
      const std::int64_t first = (task * args.samples + m) * args.outputs + column;
      Real* row = packed.get() + m * width;
      const Real* values = load(at(args.grads, args.dtype, first), args.dtype, count, row);
      if (values != row) std::memcpy(row, values, std::size_t(count) * sizeof(Real));
      std::fill(row + count, row + width, Real(0));
    }
    Real* out = static_cast<Real*>(args.out) + task * rows * args.outputs + column;
    for (std::int64_t n = args.row_begin; n < args.row_end; n += tile_rows) {
      const std::int64_t last = std::min(n + tile_rows, args.row_end);
      const Real* lines[tile_rows];
      for (int r = 0; r < tile_rows; ++r)
        lines[r] = weights + std::min(n + r, last - 1) * args.samples;
      Real tile[tile_rows][panel<Real>];
      multiply_tile<Real>(lines, packed.get(), last, tile);
      for (std::int64_t r = n; r < last; ++r)
        std::memcpy(out + (r - args.row_begin) * args.outputs, tile[r - n],
                    std::size_t(count) * sizeof(Real));
    }
  });
}

}  // namespace

void gram_products(const GramProducts& args) {
  with_accumulated(args.dtype, [&](auto real) { products<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
