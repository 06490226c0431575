// One element of the multi-label loss, shared by host and device code.
//
// A margin x is that of its label: the logit of a positive, minus the scaled logit of a negative.
// With q = sigmoid(-x), v = max(q - clip, 0) for a negative and v = q for a positive, the loss is
// v^gamma (poly v - log(1 - v)).
#pragma once

#include "kernels.h"
#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// How v^gamma is computed: whole numbers up to 4 that all tasks share need neither exp nor log.
enum class Power { whole, any };

constexpr int whole_powers = 5;

inline bool whole(const PerTask& gamma) {
  if (gamma.values) return false;
  for (int k = 0; k < whole_powers; ++k)
    if (gamma.same == k) return true;
  return false;
}

// Calls body(kind, clipped) with the constants that the arguments need.
template <class Body>
inline void with_form(const MultilabelLoss& args, const Body& body) {
  const auto with_power = [&](auto kind) {
    // A clip that the numbers of a kernel do not hold is none.
    const bool clipped = args.logits.dtype == DType::f64 ? args.clip != 0 : float(args.clip) != 0;
    return clipped ? body(kind, std::true_type{}) : body(kind, std::false_type{});
  };
  if (whole(args.gamma_pos) && whole(args.gamma_neg))
    return with_power(std::integral_constant<Power, Power::whole>{});
  with_power(std::integral_constant<Power, Power::any>{});
}

// What all elements share.
template <class Real>
struct MultilabelForm {
  Real clip, poly, smoothing, neg_scale;
  Real focus_slope;                           // 0 where v^gamma counts as constant, or 1
  Real gamma_pos, gamma_neg;                  // where Power::whole
  Real pos[whole_powers], neg[whole_powers];  // v^gamma as a polynomial

  explicit MultilabelForm(const MultilabelLoss& args)
      : clip(Real(args.clip)),
        poly(Real(args.poly)),
        smoothing(Real(args.smoothing)),
        neg_scale(Real(args.neg_scale)),
        focus_slope(args.detach_focus ? Real(0) : Real(1)),
        gamma_pos(Real(args.gamma_pos.same)),
        gamma_neg(Real(args.gamma_neg.same)) {
    for (int k = 0; k < whole_powers; ++k) {
      pos[k] = args.gamma_pos.same == k ? Real(1) : Real(0);
      neg[k] = args.gamma_neg.same == k ? Real(1) : Real(0);
    }
  }
};

// -log(x) for a normal x in (0, 1], whose rest is 1 - x to full relative accuracy.
template <class Real>
FASTMTL_INLINE Real minus_log(Real x, Real rest) {
  using S = Series<Real>;
  using Int = typename S::Int;
  // x = 2^n m with 2/3 < m <= 4/3, as in log_from_one.
  const Int exponent = (bits<Int>(x) - S::one) >> S::mantissa;
  const Real m = bits<Real>(Int(bits<Int>(x) - Int(std::uint64_t(exponent) << S::mantissa)));
  const bool fold = m > Real(4.0 / 3);
  const Real folded = fold ? m * Real(0.5) : m;
  const Real n = Real(exponent) + (fold ? Real(1) : Real(0));
  const Real beyond = n == 0 ? rest : 1 - folded;
  return twice_atanh(beyond / (1 + folded)) - n * Real(0.693147180559945309417) + (x - x);
}

// How wrong a margin is.
template <class Real>
struct Wrong {
  Real p, q, v;
  Real rest;  // 1 - v
  Real loss;  // -log(1 - v)
  Real log;   // log v; where v = 0, any number
};

template <bool clipped, class Real>
FASTMTL_INLINE Wrong<Real> wrong(Real x, bool positive, Real clip) {
  const Sigmoid<Real> s = sigmoid(x);
  if (!clipped) return {s.p, s.q, s.q, s.p, -s.log_p, s.log_q};
  const Real left = s.q - clip;
  const Real v = left < 0 ? Real(0) : left;
  const Real sum = s.p + clip;
  const Real rest = sum > 1 ? Real(1) : sum;
  const Real loss = minus_log(rest, v), log = -minus_log(v, rest);
  return {s.p,
          s.q,
          positive ? s.q : v,
          positive ? s.p : rest,
          positive ? -s.log_p : loss,
          positive ? s.log_q : log};
}

template <Power kind, class Real>
FASTMTL_INLINE Real focus(const Wrong<Real>& w, bool positive, Real gamma,
                          const MultilabelForm<Real>& form) {
  if (kind == Power::any) return exp_nonpositive(gamma * w.log);
  const Real pos = polynomial(w.v, form.pos[0], form.pos[1], form.pos[2], form.pos[3], form.pos[4]);
  const Real neg = polynomial(w.v, form.neg[0], form.neg[1], form.neg[2], form.neg[3], form.neg[4]);
  return positive ? pos : neg;
}

// The margin of a logit z.
template <class Real>
FASTMTL_INLINE Real margin(Real z, bool positive, const MultilabelForm<Real>& form) {
  return positive ? z : -form.neg_scale * z;
}

// The loss of a logit; gamma is that of the label.
template <Power kind, bool clipped, class Real>
FASTMTL_INLINE Real multilabel(Real z, bool positive, Real gamma,
                               const MultilabelForm<Real>& form) {
  const Wrong<Real> w = wrong<clipped>(margin(z, positive, form), positive, form.clip);
  return focus<kind>(w, positive, gamma, form) * (w.loss + form.poly * w.v);
}

// Its derivative with respect to the margin, without the sign, which is minus:
// v^gamma (gamma (p q / v) (poly v - log(1 - v)) + p q / (1 - v) + poly p q).
template <Power kind, bool clipped, class Real>
FASTMTL_INLINE Real multilabel_slope(Real z, bool positive, Real gamma,
                                     const MultilabelForm<Real>& form) {
  const Wrong<Real> w = wrong<clipped>(margin(z, positive, form), positive, form.clip);
  const Real pq = w.p * w.q;
  const Real by_v = !clipped || positive ? w.p : pq / w.v;
  const Real by_rest = !clipped || positive ? w.q : pq / w.rest;
  const Real focused = form.focus_slope * gamma * by_v * (w.loss + form.poly * w.v);
  const Real slope = focus<kind>(w, positive, gamma, form) * (focused + by_rest + form.poly * pq);
  return clipped && w.v == 0 ? Real(0) : slope;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
