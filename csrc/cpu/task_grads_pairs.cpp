// Bilinear forms of the gradients of every pair of tasks in a triangular matrix.
//
// Work is divided by strips of the gradients, so that a gradient is read once. Of a strip the
// products with the matrix are taken task by task, and laid down beside the gradients so that rows
// of one chunk, for all tasks, are packed rows for tiles.
#include "cpu/parallel.h"
#include "cpu/task_grads_strip.h"
#include "cpu/task_grads_tile.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

template <class Real>
constexpr std::int64_t chunk_rows = packed_columns<Real> / strip_columns<Real>;

constexpr std::int64_t most_groups = 32;  // partial sums, as many as threads can work on
constexpr double most_memory = 8 << 20;   // bytes of a thread, as far as chunks of rows allow

// Rows of samples by columns of outputs.
struct Area {
  std::int64_t row_begin, row_end;  // row_begin begins a chunk
  std::int64_t column_begin, column_end;
};

// Rows of an area, for all tasks: (chunks, padded tasks, chunk rows * strip columns).
template <class Real>
class Chunks {
 public:
  Chunks(std::int64_t rows, std::int64_t tasks)
      : tasks_(tasks),
        count_((rows + chunk_rows<Real> - 1) / chunk_rows<Real>),
        data_(count_ * padded_rows(tasks) * packed_columns<Real>) {}

  std::int64_t count() const { return count_; }
  Real* chunk(std::int64_t chunk) {
    return data_.get() + chunk * padded_rows(tasks_) * packed_columns<Real>;
  }
  Real* row(std::int64_t row, std::int64_t task) {
    return chunk(row / chunk_rows<Real>) + task * packed_columns<Real> +
           row % chunk_rows<Real> * strip_columns<Real>;
  }
  // Zeros in what is no row of the area and no task.
  void pad(std::int64_t rows) {
    for (std::int64_t k = 0; k < count_; ++k) {
      const std::int64_t used = std::min(chunk_rows<Real>, rows - k * chunk_rows<Real>);
      for (std::int64_t t = 0; t < tasks_; ++t) {
        Real* begin = chunk(k) + t * packed_columns<Real>;
        std::fill(begin + used * strip_columns<Real>, begin + packed_columns<Real>, Real(0));
      }
      std::fill(chunk(k) + tasks_ * packed_columns<Real>,
                chunk(k) + padded_rows(tasks_) * packed_columns<Real>, Real(0));
    }
  }

 private:
  std::int64_t tasks_, count_;
  Scratch<Real> data_;
};

// Columns of one task's gradient down to the end of the area, and below it the products' rows.
template <class Real>
void fill_task(const TaskGradsPairs& args, std::int64_t task, const Area& area, Real* strip,
               Chunks<Real>& grads, Chunks<Real>& products) {
  constexpr std::int64_t width = strip_columns<Real>;
  const void* matrix = at(args.grads, args.dtype, task * args.samples * args.outputs);
  pack_strip(matrix, args.dtype, area.row_end, args.outputs, area.column_begin, area.column_end,
             *static_cast<const Real*>(args.scale), strip);
  for (std::int64_t n = area.row_begin; n < area.row_end; ++n)
    std::memcpy(grads.row(n - area.row_begin, task), strip + n * width, width * sizeof(Real));
  const Real* weights = static_cast<const Real*>(args.weights);
  for (std::int64_t n = area.row_begin; n < area.row_end; n += block_rows)
    multiply_strip(weights, args.samples, n, area.row_end, strip,
                   [&](std::int64_t r, std::int64_t v, typename Lanes<Real>::Vector sums) {
                     const std::int64_t row = std::min(n + r, area.row_end - 1) - area.row_begin;
                     store_vector(sums, products.row(row, task) + v * Lanes<Real>::width);
                   });
}

// sums[i, j] += sum_k a[i, k] * b[j, k].
template <class Real>
void add_products(const Real* a, const Real* b,  // (padded tasks, packed_columns)
                  std::int64_t tasks, Real* sums) {
  constexpr std::int64_t length = packed_columns<Real>;
  for (std::int64_t first = 0; first < tasks; first += panel_rows)
    for (std::int64_t i = 0; i < tasks; i += tile_rows)
      for (std::int64_t j = first; j < std::min(first + panel_rows, tasks); j += tile_columns)
        multiply_tile(a + i * length, b + j * length, length,
                      [&](std::int64_t r, std::int64_t c, typename Lanes<Real>::Vector products) {
                        if (i + r < tasks && j + c < tasks)
                          sums[(i + r) * tasks + j + c] += sum_lanes<Real>(products);
                      });
}

template <class Real>
void add_area(const TaskGradsPairs& args, const Area& area, Real* sums) {
  const std::int64_t rows = area.row_end - area.row_begin;
  Scratch<Real> strip(area.row_end * strip_columns<Real>);
  Chunks<Real> grads(rows, args.tasks), products(rows, args.tasks);
  grads.pad(rows);
  products.pad(rows);
  for (std::int64_t t = 0; t < args.tasks; ++t)
    fill_task(args, t, area, strip.get(), grads, products);
  for (std::int64_t k = 0; k < grads.count(); ++k)
    add_products(grads.chunk(k), products.chunk(k), args.tasks, sums);
}

template <class Real>
void pairs(const TaskGradsPairs& args) {
  constexpr std::int64_t width = strip_columns<Real>;
  const std::int64_t strips = (args.outputs + width - 1) / width;
  const std::int64_t chunks = (args.samples + chunk_rows<Real> - 1) / chunk_rows<Real>;
  // Samples are divided where there are too few columns to share the work out evenly, and where a
  // thread would work on too much memory; the first of equal areas has the most rows.
  const double excess = double(args.tasks * args.samples * width * 2) * sizeof(Real) / most_memory;
  const std::int64_t shares = (most_groups + strips - 1) / strips;
  const std::int64_t parts = std::min(std::max(shares, std::int64_t(excess * excess)), chunks);
  const auto row_begin = [&](std::int64_t part) {
    const std::int64_t chunk = lower_rows(chunks, part, parts);
    return std::min(chunk * chunk_rows<Real>, args.samples);
  };
  const std::int64_t areas = strips * parts;
  const std::int64_t groups = std::min(most_groups, areas), size = args.tasks * args.tasks;
  Scratch<Real> partial(groups * size);
  const std::int64_t cost = args.tasks * args.samples * (args.samples + args.tasks) / 32 * width;
  parallel_for(groups, args.threads, cost * areas / groups, [&](std::int64_t group) {
    Real* sums = partial.get() + group * size;
    std::fill(sums, sums + size, Real(0));
    for (std::int64_t i = areas * group / groups; i < areas * (group + 1) / groups; ++i) {
      const std::int64_t column = i / parts * width, part = i % parts;
      const Area area = {row_begin(part), row_begin(part + 1), column,
                         std::min(column + width, args.outputs)};
      if (area.row_begin < area.row_end) add_area(args, area, sums);
    }
  });
  Real* out = static_cast<Real*>(args.out);
  for (std::int64_t i = 0; i < size; ++i) {
    Real sum = 0;
    for (std::int64_t g = 0; g < groups; ++g) sum += partial[g * size + i];
    out[i] = sum;
  }
}

}  // namespace

void task_grads_pairs(const TaskGradsPairs& args) {
  with_accumulated(args.dtype, [&](auto real) { pairs<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
