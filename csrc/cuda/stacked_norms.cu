// Row-wise reductions and scalings that stand between matrix products: one pass over the rows.
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr int row_threads = 256;

// Rows are cut into equal chunks, a block each.
struct Chunks {
  std::int64_t rows, columns, size, count;

  Chunks(std::int64_t rows, std::int64_t columns) : rows(rows), columns(columns) {
    constexpr std::int64_t least = 8192, blocks_a_multiprocessor = 16, unit = 8;
    const std::int64_t wanted =
        divide_up(blocks_a_multiprocessor * multiprocessors(), std::max<std::int64_t>(rows, 1));
    size = std::max(divide_up(divide_up(columns, wanted), unit) * unit, least);
    count = std::max<std::int64_t>(divide_up(columns, size), 1);
  }

  dim3 grid() const {
    return dim3(unsigned(std::min<std::int64_t>(std::max<std::int64_t>(rows * count, 1), 1 << 30)));
  }
  // Bytes of the sums of all chunks.
  std::int64_t workspace() const { return count > 1 ? rows * count * sizeof(double) : 0; }
  __host__ __device__ std::int64_t begin(std::int64_t item) const { return item % count * size; }
  __host__ __device__ std::int64_t end(std::int64_t item) const {
    const std::int64_t end = begin(item) + size;
    return end < columns ? end : columns;
  }
};

template <class T, int V>
__global__ void __launch_bounds__(row_threads)
    dots(const __grid_constant__ RowDots args, const __grid_constant__ Chunks chunks) {
  using Real = typename Accumulated<T>::Real;
  for (std::int64_t item = blockIdx.x; item < chunks.rows * chunks.count; item += gridDim.x) {
    const std::int64_t row = item / chunks.count, end = chunks.end(item);
    const T* a = static_cast<const T*>(args.a.data) + row * args.a.row_stride;
    const T* b = static_cast<const T*>(args.b.data) + row * args.b.row_stride;
    double sum[V] = {};
#pragma unroll 2
    for (std::int64_t i = chunks.begin(item) + threadIdx.x * V; i < end; i += row_threads * V) {
      Real x[V], y[V];
      load(a + i, end - i, Real(0), x);
      load(b + i, end - i, Real(0), y);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += double(x[v]) * double(y[v]);
    }
    double total = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) total += sum[v];
    total = sum_of_block(total, reinterpret_cast<double*>(shared_memory));
    if (threadIdx.x != 0) continue;
    if (chunks.count > 1) {
      static_cast<double*>(args.workspace)[item] = total;
    } else {
      args.out[row] = args.accumulate ? args.out[row] + total : total;
    }
  }
}

// A warp a row.
__global__ void __launch_bounds__(row_threads)
    finish_dots(const __grid_constant__ RowDots args, std::int64_t chunks) {
  constexpr int warps = row_threads / warp_size;
  const std::int64_t row = std::int64_t(blockIdx.x) * warps + threadIdx.x / warp_size;
  if (row >= args.rows) return;
  const int lane = threadIdx.x % warp_size;
  const double* partial = static_cast<const double*>(args.workspace) + row * chunks;
  double sum = 0;
  for (std::int64_t c = lane; c < chunks; c += warp_size) sum += partial[c];
  sum = sum_of_lanes(sum);
  if (lane == 0) args.out[row] = args.accumulate ? args.out[row] + sum : sum;
}

template <class T, int V>
__global__ void __launch_bounds__(row_threads)
    scale(const __grid_constant__ ScaleRows args, const __grid_constant__ Chunks chunks) {
  using Real = typename Accumulated<T>::Real;
  for (std::int64_t item = blockIdx.x; item < chunks.rows * chunks.count; item += gridDim.x) {
    const std::int64_t row = item / chunks.count, end = chunks.end(item);
    const T* a = static_cast<const T*>(args.a.data) + row * args.a.row_stride;
    T* out = static_cast<T*>(args.out) + row * args.columns;
    const Real factor = static_cast<const Real*>(args.factor)[row];
    for (std::int64_t i = chunks.begin(item) + threadIdx.x * V; i < end; i += row_threads * V) {
      Real x[V];
      load(a + i, end - i, Real(0), x);
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] *= factor;
      store(x, end - i, out + i);
    }
  }
}

// Whether every row begins at a multiple of 16 bytes.
bool rows_aligned(const void* data, std::int64_t row_stride, int vector) {
  return aligned(data) && row_stride % vector == 0;
}

}  // namespace

void row_dots(const RowDots& args) {
  const DeviceGuard guard(args.device);
  const char* name = "row_dots";
  const Chunks chunks(args.rows, args.columns);
  if (!args.rows) return;
  if (chunks.workspace() && !args.workspace)
    throw std::logic_error("fastmtl: row_dots without its workspace");
  with_floating(args.a.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int V = widest<T>;
    const bool wide = rows_aligned(args.a.data, args.a.row_stride, V) &&
                      rows_aligned(args.b.data, args.b.row_stride, V);
    launch(name, wide ? dots<T, V> : dots<T, 1>, chunks.grid(), row_threads,
           sizeof(double) * row_threads / warp_size, args.stream, args, chunks);
    if (chunks.count == 1) return;
    launch(name, finish_dots, dim3(unsigned(divide_up(args.rows, row_threads / warp_size))),
           row_threads, 0, args.stream, args, chunks.count);
  });
}

void scale_rows(const ScaleRows& args) {
  const DeviceGuard guard(args.device);
  const Chunks chunks(args.rows, args.columns);
  if (!args.rows || !args.columns) return;
  with_floating(args.a.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int V = widest<T>;
    const bool wide =
        rows_aligned(args.a.data, args.a.row_stride, V) && rows_aligned(args.out, args.columns, V);
    launch("scale_rows", wide ? scale<T, V> : scale<T, 1>, chunks.grid(), row_threads, 0,
           args.stream, args, chunks);
  });
}

std::int64_t row_dots_workspace(int device, std::int64_t rows, std::int64_t columns) {
  const DeviceGuard guard(device);
  return Chunks(rows, columns).workspace();
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
