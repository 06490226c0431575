// The recurrence of GRUs, all tasks and directions in one call.
//
// A thread takes a (task, direction) and a tile of its sequences through all time steps: a product
// with the recurrent weights, packed once, then the gates.
#include <algorithm>
#include <cstdint>

#include "cpu/block_product.h"
#include "cpu/memory.h"
#include "cpu/task_gru_tiles.h"
#include "gates.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// 64 columns, or as many as there are, of one sequence's step forward. What is kept has its own
// type; the state is carried in that of the arithmetic.
template <bool saves, class Real, class Kept>
void forward_gates(std::int64_t count, std::int64_t h, const Real* __restrict product,
                   const Real* __restrict bias, Kept* __restrict gates, Kept* __restrict hidden,
                   Real* __restrict state, Kept* __restrict output) {
#pragma omp simd
  for (std::int64_t c = 0; c < count; ++c) {
    const Real r = logistic(widen<Real>(gates[c]) + product[c]);
    const Real z = logistic(widen<Real>(gates[h + c]) + product[h + c]);
    const Real input = widen<Real>(gates[2 * h + c]) + bias[c];
    const Real n = hyperbolic_tangent(input + r * product[2 * h + c]);
    if (saves) {
      gates[c] = narrow<Kept>(r);
      gates[h + c] = narrow<Kept>(z);
      gates[2 * h + c] = narrow<Kept>(n);
      hidden[c] = narrow<Kept>(product[2 * h + c]);
    }
    state[c] = n + z * (state[c] - n);
    output[c] = narrow<Kept>(state[c]);
  }
}

template <class Real, class Kept>
class Forward {
 public:
  Forward(const TaskGRUForward& args, const SequenceTiles& tiles)
      : args_(args),
        tiles_(tiles),
        weight_(args.hidden, 3 * args.hidden),
        state_(tiles.largest(), 1, args.hidden),
        bias_(weight_.padded_columns()),
        product_(tiles.largest() * weight_.padded_columns()) {}

  void run(std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const Pair pair(args_, item / tiles_.per_pair());
      if (item == begin || item % tiles_.per_pair() == 0) start(pair);
      sequences(pair, tiles_[item % tiles_.per_pair()]);
    }
  }

 private:
  void start(const Pair& pair) {
    const std::int64_t h = args_.hidden;
    weight_.pack(static_cast<const Real*>(args_.weight_hh) + pair.index * 3 * h * h, 1, h);
    const Real* input = static_cast<const Real*>(args_.bias_ih) + pair.index * 3 * h;
    const Real* own = static_cast<const Real*>(args_.bias_hh) + pair.index * 3 * h;
    for (std::int64_t i = 0; i < 2 * h; ++i) bias_[i] = input[i] + own[i];
    std::copy(own + 2 * h, own + 3 * h, bias_.get() + 2 * h);
    std::fill(bias_.get() + 3 * h, bias_.get() + weight_.padded_columns(), Real(0));
    input_bias_ = input + 2 * h;
  }

  void sequences(const Pair& pair, const SequenceTile& tile) {
    const std::int64_t columns = weight_.padded_columns();
    const std::int64_t steps = args_.lengths[tile.order[0]];
    for (std::int64_t chunk = 0; chunk < state_.chunks(); ++chunk)
      std::fill_n(state_.at(0, chunk, 0), state_.stride(), Real(0));
    for (std::int64_t s = 0; s < steps; ++s) {
      const std::int64_t running = pair.running(tile, s);
      for (std::int64_t i = 0; i < running; ++i)
        std::copy_n(bias_.get(), columns, product_.get() + i * columns);
      if (s) multiply(state_, running, weight_, product_.get());
      for (std::int64_t i = 0; i < running; ++i) step(pair, i, pair.row(tile.order[i], s));
    }
  }

  void step(const Pair& pair, std::int64_t i, std::int64_t row) {
    const std::int64_t h = args_.hidden;
    const Real* product = product_.get() + i * weight_.padded_columns();
    Kept* gates = static_cast<Kept*>(args_.gates) + pair.gates(row);
    Kept* output = static_cast<Kept*>(args_.output) + pair.output(row);
    Kept* hidden = static_cast<Kept*>(args_.hidden_n);
    if (hidden) hidden += pair.own(row, h);
    for (std::int64_t chunk = 0; chunk < state_.chunks(); ++chunk) {
      const std::int64_t c = chunk * chunk_columns, count = std::min(chunk_columns, h - c);
      Real* state = state_.at(0, chunk, i);
      if (hidden)
        forward_gates<true>(count, h, product + c, input_bias_ + c, gates + c, hidden + c, state,
                            output + c);
      else
        forward_gates<false>(count, h, product + c, input_bias_ + c, gates + c, hidden, state,
                             output + c);
    }
  }

  const TaskGRUForward& args_;
  const SequenceTiles& tiles_;
  PackedMatrix<Real> weight_;         // (h, 3h)
  ChunkedRows<Real> state_;           // (rows, h)
  Scratch<Real> bias_, product_;      // (3h,), (rows, 3h), padded
  const Real* input_bias_ = nullptr;  // (h,) of the n gate
};

template <class Real, class Kept>
void forward(const TaskGRUForward& args) {
  const SequenceTiles tiles(args);
  tiles.in_parallel([&](std::int64_t begin, std::int64_t end) {
    Forward<Real, Kept>(args, tiles).run(begin, end);
  });
}

// 64 columns, or as many as there are, of one sequence's step backward. With dh the gradient of
// the step's state: `carry` becomes its part that bypasses the recurrent product.
template <class Real, class Kept>
void backward_gates(std::int64_t count, std::int64_t h, const Kept* __restrict gates,
                    const Kept* __restrict hidden, const Kept* __restrict previous,
                    const Kept* __restrict upstream, Real* __restrict carry,
                    Real* __restrict grad_r, Real* __restrict grad_z, Real* __restrict grad_hidden,
                    Kept* __restrict grad_gates, Real* __restrict sums) {
#pragma omp simd
  for (std::int64_t c = 0; c < count; ++c) {
    const Real r = widen<Real>(gates[c]), z = widen<Real>(gates[h + c]);
    const Real n = widen<Real>(gates[2 * h + c]);
    const Real dh = carry[c] + widen<Real>(upstream[c]);
    const Real dn = dh * (1 - z) * (1 - n * n);
    const Real dz = dh * (widen<Real>(previous[c]) - n) * z * (1 - z);
    const Real dr = dn * widen<Real>(hidden[c]) * r * (1 - r);
    carry[c] = dh * z;
    grad_r[c] = dr;
    grad_z[c] = dz;
    grad_hidden[c] = dn * r;
    grad_gates[c] = narrow<Kept>(dr);
    grad_gates[h + c] = narrow<Kept>(dz);
    grad_gates[2 * h + c] = narrow<Kept>(dn);
    sums[c] += dr;
    sums[h + c] += dz;
    sums[2 * h + c] += dn;
    sums[3 * h + c] += dn * r;
  }
}

template <class Real, class Kept>
class Backward {
 public:
  Backward(const TaskGRUBackward& args, const SequenceTiles& tiles, Real* sums)
      : args_(args),
        tiles_(tiles),
        sums_(sums),
        weight_(3 * args.hidden, args.hidden),
        grads_(tiles.largest(), 3, args.hidden),
        carry_(tiles.largest() * weight_.padded_columns()),
        zeros_(args.hidden) {
    std::fill_n(zeros_.get(), args.hidden, Kept{});
  }

  void run(std::int64_t begin, std::int64_t end) {
    const std::int64_t h = args_.hidden;
    for (std::int64_t item = begin; item < end; ++item) {
      const Pair pair(args_, item / tiles_.per_pair());
      if (item == begin || item % tiles_.per_pair() == 0)
        weight_.pack(static_cast<const Real*>(args_.weight_hh) + pair.index * 3 * h * h, h, 1);
      sequences(pair, tiles_[item % tiles_.per_pair()], sums_ + item * 4 * h);
    }
  }

 private:
  void sequences(const Pair& pair, const SequenceTile& tile, Real* sums) {
    std::fill_n(sums, 4 * args_.hidden, Real(0));
    std::fill_n(carry_.get(), tile.count * weight_.padded_columns(), Real(0));
    for (std::int64_t s = args_.lengths[tile.order[0]] - 1; s >= 0; --s) {
      const std::int64_t running = pair.running(tile, s);
      for (std::int64_t i = 0; i < running; ++i) step(pair, tile.order[i], i, s, sums);
      if (s) multiply(grads_, running, weight_, carry_.get());
    }
  }

  void step(const Pair& pair, std::int64_t b, std::int64_t i, std::int64_t s, Real* sums) {
    const std::int64_t h = args_.hidden, row = pair.row(b, s);
    const std::int64_t previous_row = s ? pair.row(b, s - 1) : 0;
    const Kept* gates = static_cast<const Kept*>(args_.gates) + pair.gates(row);
    const Kept* hidden = static_cast<const Kept*>(args_.hidden_n) + pair.own(row, h);
    const Kept* upstream = static_cast<const Kept*>(args_.grad_output) + pair.output(row);
    const Kept* previous =
        s ? static_cast<const Kept*>(args_.output) + pair.output(previous_row) : zeros_.get();
    Kept* grad_gates = static_cast<Kept*>(args_.grad_gates) + pair.gates(row);
    Real* carry = carry_.get() + i * weight_.padded_columns();
    for (std::int64_t chunk = 0; chunk < grads_.chunks(); ++chunk) {
      const std::int64_t c = chunk * chunk_columns, count = std::min(chunk_columns, h - c);
      backward_gates(count, h, gates + c, hidden + c, previous + c, upstream + c, carry + c,
                     grads_.at(0, chunk, i), grads_.at(1, chunk, i), grads_.at(2, chunk, i),
                     grad_gates + c, sums + c);
    }
    store_recurrent(pair, i, s ? previous_row : -1);
    if (s == args_.lengths[b] - 1)
      std::fill_n(static_cast<Kept*>(args_.grad_recurrent) + pair.own(row, 3 * h), 3 * h, Kept{});
  }

  // The gradient of a step's recurrent product stands in the row of the state that went into it.
  void store_recurrent(const Pair& pair, std::int64_t i, std::int64_t row) {
    if (row < 0) return;
    Kept* to = static_cast<Kept*>(args_.grad_recurrent) + pair.own(row, 3 * args_.hidden);
    for (std::int64_t gate = 0; gate < 3; ++gate)
      for (std::int64_t chunk = 0; chunk < grads_.chunks(); ++chunk) {
        const std::int64_t c = chunk * chunk_columns;
        store(grads_.at(gate, chunk, i), to + gate * args_.hidden + c, args_.dtype,
              std::min(chunk_columns, args_.hidden - c));
      }
  }

  const TaskGRUBackward& args_;
  const SequenceTiles& tiles_;
  Real* sums_;                 // (items, 4h)
  PackedMatrix<Real> weight_;  // (3h, h)
  ChunkedRows<Real> grads_;    // (rows, 3 * h) of the recurrent product
  Scratch<Real> carry_;        // (rows, h) padded
  Scratch<Kept> zeros_;        // (h,)
};

template <class Real, class Kept>
void backward(const TaskGRUBackward& args) {
  const SequenceTiles tiles(args);
  const std::int64_t pairs = args.tasks * args.directions, width = 4 * args.hidden;
  Scratch<Real> sums(pairs * tiles.per_pair() * width);
  tiles.in_parallel([&](std::int64_t begin, std::int64_t end) {
    Backward<Real, Kept>(args, tiles, sums.get()).run(begin, end);
  });
  Real* out = static_cast<Real*>(args.grad_bias);
  std::fill_n(out, pairs * width, Real(0));
  for (std::int64_t item = 0; item < pairs * tiles.per_pair(); ++item)
    for (std::int64_t i = 0; i < width; ++i)
      out[item / tiles.per_pair() * width + i] += sums[item * width + i];
}

}  // namespace

void task_gru_forward(const TaskGRUForward& args) {
  with_floating(args.dtype,
                [&](auto real, auto kept) { forward<decltype(real), decltype(kept)>(args); });
}

void task_gru_backward(const TaskGRUBackward& args) {
  with_floating(args.dtype,
                [&](auto real, auto kept) { backward<decltype(real), decltype(kept)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
