// How the recurrence of GRUs is divided among threads, and where the values of a task and direction
// lie.
//
// The tiles take the sequences in the order of their lengths, so that those still running at a step
// are a prefix of the tile. Step s is time step s of a sequence, or in reverse the s-th from its
// own end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/vector.h"
#include "kernels.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr std::int64_t sequences_of_tile = 24;
static_assert(sequences_of_tile % block_rows == 0, "a tile is whole blocks");
constexpr std::int64_t products_per_exp = 64;

// Sequences of one tile, longest first.
struct SequenceTile {
  const std::int64_t* order;
  std::int64_t count;
};

// The work of a call, in tiles.
class SequenceTiles {
 public:
  explicit SequenceTiles(const TaskGRU& args) : args_(args), order_(args.batch) {
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) {
      return args.lengths[a] > args.lengths[b];
    });
    count_ = (args.batch + sequences_of_tile - 1) / sequences_of_tile;
  }

  std::int64_t per_pair() const { return count_; }
  std::int64_t largest() const { return count_ ? (args_.batch + count_ - 1) / count_ : 0; }

  SequenceTile operator[](std::int64_t tile) const {
    const std::int64_t begin = args_.batch * tile / count_;
    return {order_.data() + begin, args_.batch * (tile + 1) / count_ - begin};
  }

  // Calls body(begin, end) for runs of items, each a pair and a tile of it, on the threads.
  template <class Body>
  void in_parallel(const Body& body) const {
    const std::int64_t items = args_.tasks * args_.directions * count_;
    const std::int64_t runs = std::min<std::int64_t>(items, args_.threads);
    if (!runs) return;
    const std::int64_t products = 3 * args_.hidden * args_.hidden * args_.rows * args_.tasks *
                                  args_.directions / products_per_exp;
    parallel_for(runs, args_.threads, products / runs,
                 [&](std::int64_t run) { body(items * run / runs, items * (run + 1) / runs); });
  }

 private:
  const TaskGRU& args_;
  std::vector<std::int64_t> order_;
  std::int64_t count_;
};

// Where the values of a (task, direction) lie.
struct Pair {
  Pair(const TaskGRU& args, std::int64_t index)
      : args(args), index(index), task(index / args.directions), reverse(index % args.directions) {}

  // The row of sequence b at step s.
  std::int64_t row(std::int64_t b, std::int64_t s) const {
    return args.starts[b] + (reverse ? args.lengths[b] - 1 - s : s);
  }
  // (3h,) of `gates` or its gradient.
  std::int64_t gates(std::int64_t row) const {
    return task * args.gates_task_stride + row * args.gates_row_stride + reverse * 3 * args.hidden;
  }
  // (h,) of an output or its gradient, (T, R, dirs * h).
  std::int64_t output(std::int64_t row) const {
    return ((task * args.rows + row) * args.directions + reverse) * args.hidden;
  }
  // `width` values of an array (T, dirs, R, width).
  std::int64_t own(std::int64_t row, std::int64_t width) const {
    return (index * args.rows + row) * width;
  }
  // How many of a tile's sequences run at step s.
  std::int64_t running(const SequenceTile& tile, std::int64_t s) const {
    std::int64_t count = tile.count;
    while (count && args.lengths[tile.order[count - 1]] <= s) --count;
    return count;
  }

  const TaskGRU& args;
  std::int64_t index, task, reverse;
};

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
