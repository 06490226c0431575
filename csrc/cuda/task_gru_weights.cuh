// The products of the recurrence of GRUs, as the threads of a block share them: each thread's part
// of the weights, and how the sums of neighbouring lanes come together.
#pragma once

#include <cstdint>

#include "cuda/reduce.cuh"
#include "cuda/task_gru_plan.cuh"
#include "cuda/vector.cuh"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace gru {

// A thread's place: its team's outputs, its share of their inputs, and the unit that it finishes.
template <class Shape>
struct Place {
  int lane;   // in its team
  int first;  // output of the team
  int own;    // unit
  int half;   // of the sequences

  __device__ Place() {
    const int in_warp = threadIdx.x % warp_size;
    lane = in_warp % Shape::lanes;
    first = (threadIdx.x / warp_size) * warp_units + in_warp / Shape::lanes * Shape::units;
    own = first + lane % Shape::units;
    half = lane / Shape::units;
  }
};

// Sequences of a tile that one lane finishes.
template <int S>
constexpr int lane_sequences = (S + 1) / 2;

// Adds up a team's sums: lane l gets those of unit l % units, for the first half of the sequences
// where l < units and for the others elsewhere. Each exchange halves what is left to sum.
template <class Shape, int S, class Real>
__device__ void add_lanes(Real (&sums)[Shape::units][S], Real (&own)[lane_sequences<S>]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int half = Shape::units / 2; half > 0; half /= 2) {
    const bool upper = lane & half;
#pragma unroll
    for (int k = 0; k < half; ++k)
#pragma unroll
      for (int q = 0; q < S; ++q) {
        const Real low = sums[k][q], high = sums[k + half][q];
        sums[k][q] = (upper ? high : low) + __shfl_xor_sync(all_lanes, upper ? low : high, half);
      }
  }
  constexpr int first = lane_sequences<S>;
  const bool upper = lane & Shape::units;
#pragma unroll
  for (int i = 0; i < first; ++i) {
    const Real low = sums[0][i], high = first + i < S ? sums[0][(first + i) % S] : Real(0);
    own[i] = (upper ? high : low) + __shfl_xor_sync(all_lanes, upper ? low : high, Shape::units);
  }
}

// The weights of a thread, chunk by chunk: the first `held` in registers.
template <class Real, int size, int held>
class Weights {
 public:
  // read(chunk, weights) reads a chunk's from global memory.
  template <class Read>
  __device__ Weights(const Layout& layout, Real* shared, const Read& read)
      : layout_(layout), shared_(shared) {
#pragma unroll
    for (int c = 0; c < held; ++c) read(c, held_[c]);
#pragma unroll 1
    for (int c = 0; c < layout.in_shared; ++c) {
      Real weights[size];
      read(held + c, weights);
#pragma unroll
      for (int i = 0; i < size / V; ++i) {
        Pack<Real, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) pack.element[v] = weights[i * V + v];
        pack.write(at(c, i));
      }
    }
  }

  // Calls use(chunk, weights) for all chunks.
  template <class Read, class Use>
  __device__ void each(const Read& read, const Use& use) const {
#pragma unroll
    for (int c = 0; c < held; ++c) use(c, held_[c]);
#pragma unroll 1
    for (int c = 0; c < layout_.in_shared; ++c) {
      Real weights[size];
#pragma unroll
      for (int i = 0; i < size / V; ++i) {
        const Pack<Real, V> pack = Pack<Real, V>::read(at(c, i));
#pragma unroll
        for (int v = 0; v < V; ++v) weights[i * V + v] = pack.element[v];
      }
      use(held + c, weights);
    }
#pragma unroll 1
    for (int c = held + layout_.in_shared; c < layout_.chunks; ++c) {
      Real weights[size];
      read(c, weights);
      use(c, weights);
    }
  }

 private:
  static constexpr int V = widest<Real>;

  // Only its own thread reads what lies there; neighbours' lie side by side.
  __device__ Real* at(int c, int i) const {
    return shared_ + ((c * (size / V) + i) * int(blockDim.x) + int(threadIdx.x)) * V;
  }

  const Layout& layout_;
  Real* shared_;
  Real held_[held ? held : 1][size];
};

// Four consecutive weights, those beyond the first `count` 0.
template <class Real>
__device__ void read_four(const Real* from, std::int64_t count, bool wide, Real* to) {
  Real part[4] = {};
  if (wide) {
    if (count > 0) load(from, 4, Real(0), part);
  } else {
    load<4>(from, count < 3 ? count : 3, Real(0), part);
    if (count > 3) part[3] = from[3];
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) to[e] = part[e];
}

}  // namespace gru
}  // namespace FASTMTL_ISA
}  // namespace fastmtl
