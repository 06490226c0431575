// How the losses walk over their (N, T) elements, and how they reduce them.
//
// A block has a fixed number of positions, laid over a tile of whole rows (or over a part of one
// long row). Blocks step from tile to tile, so every position stays in one column, and its sum
// stays in a register until the last tile. Then a block folds its positions into columns and, where
// there are more blocks than one, a second launch adds up the blocks in order: no atomics, no
// counters, nothing to clear beforehand.
#pragma once

#include <cstdint>
#include <numeric>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr int loss_threads = 256;

struct LossTiles {
  std::int64_t rows, columns;
  std::int64_t tiles;
  int width, tile_rows;           // of a tile
  int row_blocks, column_blocks;  // the grid

  // positions: of a block; vector: consecutive positions that are one access. Without room for a
  // tile that keeps every access aligned, tile_rows is 0.
  LossTiles(std::int64_t rows, std::int64_t columns, int positions, int vector)
      : rows(rows), columns(columns) {
    constexpr int tiles_a_block = 4;  // fewer are not worth a block's share of the second stage
    column_blocks = int(std::max<std::int64_t>(divide_up(columns, positions), 1));
    width = int(std::max<std::int64_t>(divide_up(columns, column_blocks), 1));
    if (column_blocks > 1) {
      width = int(divide_up(width, vector)) * vector;
      tile_rows = columns % vector ? 0 : 1;
    } else {
      tile_rows = positions / width;
      tile_rows -= tile_rows % (vector / std::gcd(width, vector));
    }
    tiles = tile_rows ? divide_up(rows, tile_rows) : 0;
    row_blocks = int(std::max<std::int64_t>(
        std::min(divide_up(tiles, tiles_a_block), most_row_blocks(blocks_a_multiprocessor)), 1));
  }

  // Takes no more blocks than there is room for at once, by how many a multiprocessor holds.
  void fit(int resident_blocks) {
    const std::int64_t most = std::max<std::int64_t>(most_row_blocks(resident_blocks), 1);
    row_blocks = int(std::min<std::int64_t>(row_blocks, most));
  }

  dim3 grid() const { return dim3(unsigned(row_blocks), unsigned(column_blocks)); }

  // Bytes of the sums of all blocks.
  std::int64_t workspace() const {
    const bool several = row_blocks * std::int64_t(column_blocks) > 1;
    return several ? std::int64_t(row_blocks) * columns * 2 * sizeof(double) : 0;
  }

 private:
  static constexpr int blocks_a_multiprocessor = 8;  // at most

  std::int64_t most_row_blocks(int resident_blocks) const {
    return divide_up(std::int64_t(resident_blocks) * multiprocessors(), column_blocks);
  }
};

// Where a loss goes, and its sums on the way there.
template <class Real>
struct LossResults {
  Reduction reduction;
  std::int64_t columns;
  Real* loss;
  Real* scale;
  double* partial;  // (blocks, 2, columns or 1); null with one block

  __device__ bool by_task() const { return reduction == Reduction::task; }
  __device__ std::int64_t sums() const { return by_task() ? columns : 1; }

  // Writes a sum that is complete; by all threads of a block if it is the only one.
  __device__ void finish(std::int64_t column, double sum, double present) const {
    const bool average = reduction != Reduction::sum;
    const double factor = average ? (present > 0 ? 1 / present : 0) : 1;
    loss[column] = average && present == 0 ? Real(0) : Real(sum * factor);
    if (by_task()) scale[column] = Real(factor);
  }
  // The factor of every column where there is only one; by all threads of a block.
  __device__ void fill_scale(double present) const {
    const double factor = reduction != Reduction::mean ? 1 : (present > 0 ? 1 / present : 0);
    for (std::int64_t j = threadIdx.x; j < columns; j += blockDim.x) scale[j] = Real(factor);
  }
};

// One block's tile of positions, as a thread sees it: V positions from `position` on.
template <int V>
struct LossPosition {
  int position, column_count;
  std::int64_t column;       // of the first position
  std::int64_t row_in_tile;  // of the first position

  __device__ LossPosition(const LossTiles& tiles, int position) : position(position) {
    const std::int64_t begin = std::int64_t(blockIdx.y) * tiles.width;
    const std::int64_t left = tiles.columns - begin;
    column_count = int(left < tiles.width ? left : tiles.width);
    column = begin + position % tiles.width;
    row_in_tile = position / tiles.width;
  }

  // The column of position + v.
  __device__ std::int64_t column_of(const LossTiles& tiles, int v) const {
    return std::int64_t(blockIdx.y) * tiles.width + (position + v) % tiles.width;
  }

  // How many of the V positions lie in the matrix, from none or fewer to V or more.
  __device__ std::int64_t count(const LossTiles& tiles, std::int64_t tile) const {
    const std::int64_t left = tiles.rows - tile * tiles.tile_rows;
    return (left < tiles.tile_rows ? left : tiles.tile_rows) * column_count - position;
  }

  // The element of a matrix at the first position: dense where V > 1, of any strides where V = 1.
  __device__ std::int64_t index(const LossTiles& tiles, std::int64_t tile,
                                const Matrix& matrix) const {
    const std::int64_t row = tile * tiles.tile_rows;
    if (V > 1) return row * tiles.columns + std::int64_t(blockIdx.y) * tiles.width + position;
    return (row + row_in_tile) * matrix.row_stride + column * matrix.column_stride;
  }
};

// A value for each of a thread's positions that depends on the column alone; 1 where null.
template <int V, class Real>
__device__ void load_columns(const Real* values, std::int64_t stride, const LossTiles& tiles,
                             const LossPosition<V>& at, Real (&to)[V]) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const std::int64_t column = at.column_of(tiles, v);
    to[v] = values && column < tiles.columns ? values[column * stride] : Real(1);
  }
}

// Shared memory of reduce_block.
template <class Real>
constexpr std::int64_t reduction_bytes(int positions) {
  return positions * std::int64_t(sizeof(Real) + sizeof(int));
}

// Reduces the sums of a block's positions (V a thread, for the threads that bring any) and passes
// them on: to the results if this block is the only one for its columns.
template <int V, class Real>
__device__ void reduce_block(const LossTiles& tiles, const LossResults<Real>& results, int first,
                             bool brings, const Real (&sum)[V], const int (&present)[V]) {
  if (results.reduction == Reduction::none) {
    if (blockIdx.x == 0 && blockIdx.y == 0) results.fill_scale(1);
    return;
  }
  const int used = tiles.tile_rows * tiles.width;
  Real* sums = reinterpret_cast<Real*>(shared_memory);
  int* counts = reinterpret_cast<int*>(sums + used);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (!brings || first + v >= used) continue;
    sums[first + v] = sum[v];
    counts[first + v] = present[v];
  }
  __syncthreads();
  const int unit = results.by_task() ? tiles.width : 1;
  for (int units = used / unit; units > 1;) {
    const int half = (units + 1) / 2;
    for (int i = threadIdx.x; i < (units - half) * unit; i += blockDim.x) {
      sums[i] += sums[i + half * unit];
      counts[i] += counts[i + half * unit];
    }
    units = half;
    __syncthreads();
  }

  const std::int64_t begin = results.by_task() ? std::int64_t(blockIdx.y) * tiles.width : 0;
  const std::int64_t left = results.sums() - begin;
  const int count = int(left < unit ? left : unit);
  if (!results.partial) {
    for (int i = threadIdx.x; i < count; i += blockDim.x)
      results.finish(begin + i, double(sums[i]), double(counts[i]));
    if (!results.by_task()) results.fill_scale(counts[0]);
    return;
  }
  // Sums over everything have one entry a block, whichever columns it had.
  const std::int64_t block =
      results.by_task() ? blockIdx.x : std::int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  double* partial = results.partial + 2 * block * results.sums() + begin;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    partial[i] = sums[i];
    partial[results.sums() + i] = counts[i];
  }
}

constexpr int finish_columns = 32, finish_rows = 32;

// Adds up the partial sums of `blocks` blocks for finish_columns columns.
template <class Real>
__global__ void __launch_bounds__(finish_columns* finish_rows)
    finish_loss(LossResults<Real> results, std::int64_t blocks) {
  double (*sums)[finish_columns] = reinterpret_cast<double (*)[finish_columns]>(shared_memory);
  double (*counts)[finish_columns] = sums + finish_rows;
  const int x = threadIdx.x % finish_columns, y = threadIdx.x / finish_columns;
  const std::int64_t count = results.sums();
  const std::int64_t column = std::int64_t(blockIdx.x) * finish_columns + x;
  double sum = 0, present = 0;
  if (column < count) {
#pragma unroll 4
    for (std::int64_t b = y; b < blocks; b += finish_rows) {
      sum += results.partial[2 * b * count + column];
      present += results.partial[(2 * b + 1) * count + column];
    }
  }
  sums[y][x] = sum;
  counts[y][x] = present;
  __syncthreads();
  for (int half = finish_rows / 2; half > 0; half /= 2) {
    if (y < half) {
      sums[y][x] += sums[y + half][x];
      counts[y][x] += counts[y + half][x];
    }
    __syncthreads();
  }
  if (y == 0 && column < count) results.finish(column, sums[0][x], counts[0][x]);
  if (!results.by_task()) results.fill_scale(counts[0][0]);
}

// Calls launch_kernel(results) for the kernel of a loss, and launches the second stage where there
// is one.
template <class Real, class Args, class Launch>
void reduce_loss(const char* name, const Args& args, const LossTiles& tiles,
                 const Launch& launch_kernel) {
  const bool by_task = args.reduction == Reduction::task;
  const bool several = args.reduction != Reduction::none &&
                       (tiles.row_blocks > 1 || (tiles.column_blocks > 1 && !by_task));
  if (several && !args.workspace) throw std::logic_error("fastmtl: a loss without its workspace");
  const LossResults<Real> results = {args.reduction, tiles.columns, static_cast<Real*>(args.loss),
                                     static_cast<Real*>(args.scale),
                                     several ? static_cast<double*>(args.workspace) : nullptr};
  launch_kernel(results);
  if (!several) return;
  const std::int64_t blocks =
      by_task ? tiles.row_blocks : std::int64_t(tiles.row_blocks) * tiles.column_blocks;
  launch(name, finish_loss<Real>,
         dim3(unsigned(by_task ? divide_up(tiles.columns, finish_columns) : 1)),
         finish_columns * finish_rows, 2 * sizeof(double) * finish_columns * finish_rows,
         args.stream, results, blocks);
}

// Whether accesses of several elements may take a matrix as one dense array.
inline bool dense(const Matrix& matrix, std::int64_t columns) {
  return !matrix.data || (aligned(matrix.data) && matrix.row_stride == columns &&
                          (matrix.column_stride == 1 || columns == 1));
}

// Calls body(T{}, V, tiles) for an elementwise loss of logits of a dtype, with the widest access
// that matrices which are dense or not allow.
template <class Body>
void with_loss_tiles(DType dtype, std::int64_t rows, std::int64_t tasks, bool all_dense,
                     const Body& body) {
  with_floating(dtype, [&](auto element) {
    constexpr int V = widest<decltype(element)>;
    const LossTiles wide(rows, tasks, loss_threads * V, V);
    if (all_dense && wide.tile_rows) return body(element, std::integral_constant<int, V>{}, wide);
    body(element, std::integral_constant<int, 1>{}, LossTiles(rows, tasks, loss_threads, 1));
  });
}

// Bytes of workspace of an elementwise loss of logits of any dtype.
inline std::int64_t elementwise_loss_workspace(int device, std::int64_t rows, std::int64_t tasks) {
  const DeviceGuard guard(device);
  std::int64_t bytes = 0;
  for (const int vector : {1, 2, 4, 8})
    bytes = std::max(bytes, LossTiles(rows, tasks, loss_threads * vector, vector).workspace());
  return bytes;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
