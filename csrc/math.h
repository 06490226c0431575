// Per-element formulas, shared by host and device code.
//
// Host loops over these functions vectorise: they are branch-free, and exp and log are polynomials
// rather than library calls. NaN passes through all of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define FASTMTL_INLINE __host__ __device__ __forceinline__
#define FASTMTL_KERNEL_INLINE __device__ __forceinline__  // calls what a kernel alone has
#else
#define FASTMTL_INLINE inline __attribute__((always_inline))
#define FASTMTL_KERNEL_INLINE inline
#endif

namespace fastmtl {
// Every instruction set compiles these under its own name, so that the linker cannot pick one that
// the machine does not have.
inline namespace FASTMTL_ISA {

template <class To, class From>
FASTMTL_INLINE To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

#ifdef __CUDA_ARCH__
// 2^x and 1 / x from the special-function units.
#define FASTMTL_SPECIAL_FUNCTIONS
__device__ __forceinline__ float ex2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ float rcp_approx(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
#endif

#ifdef FASTMTL_SPECIAL_FUNCTIONS  // of a device, or of the tests that stand in for one
// exp(x) and 1 / x, within a few ulp. exp takes what rounding x / ln2 lost as a factor of its own,
// without which its relative error would grow with |x|.
FASTMTL_INLINE float device_exp(float x) {
  const float scaled = x * 1.44269502f;
  const float lost = fmaf(x, 1.44269502f, -scaled) + x * 1.92596299e-8f;
  const float power = ex2_approx(scaled);
  return fmaf(power, lost * 0.693147181f, power);
}
FASTMTL_INLINE float device_reciprocal(float x) { return rcp_approx(x); }
FASTMTL_INLINE double device_reciprocal(double x) { return 1 / x; }
#endif

// 1 / x for a normal x whose reciprocal is normal.
template <class Real>
FASTMTL_INLINE Real reciprocal(Real x) {
#ifdef FASTMTL_SPECIAL_FUNCTIONS
  return device_reciprocal(x);
#else
  return 1 / x;
#endif
}

// c0 + c1 x + c2 x^2 + ...
template <class Real>
FASTMTL_INLINE Real polynomial(Real, Real c) {
  return c;
}
template <class Real, class... Rest>
FASTMTL_INLINE Real polynomial(Real x, Real c, Rest... rest) {
  return polynomial(x, rest...) * x + c;
}

// Number format and series of one type. `expm1` is for |r| <= ln2 / 2 and `twice_atanh`, 2 atanh(s)
// / s as a series in s^2, for |s| <= 1/3; both are Chebyshev interpolations, whose error is below a
// rounding.
template <class Real>
struct Series;

template <>
struct Series<float> {
  using Int = std::int32_t;
  static constexpr int mantissa = 23;
  static constexpr Int one = 0x3f800000;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float lowest = -87.33654f;  // log of the smallest normal number
  static constexpr float ln2_high = 0.693145752f;
  static constexpr float ln2_low = 1.42860677e-6f;

  static FASTMTL_INLINE float expm1(float r) {
    return r * polynomial(r, 1.0000000377f, 0.50000000471f, 0.16666415515f, 0.041666352897f,
                          0.0083751263982f, 0.0013941108434f);
  }
  static FASTMTL_INLINE float twice_atanh(float square) {
    return polynomial(square, 2.0000000077f, 0.66666321641f, 0.40024595231f, 0.27965157745f,
                      0.28157778363f);
  }
};

template <>
struct Series<double> {
  using Int = std::int64_t;
  static constexpr int mantissa = 52;
  static constexpr Int one = 0x3ff0000000000000;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double lowest = -708.39641853226;
  static constexpr double ln2_high = 0.693147180369123816490;
  static constexpr double ln2_low = 1.90821492927058770002e-10;

  static FASTMTL_INLINE double expm1(double r) {
    return r * polynomial(r, 1.0000000000000067423, 0.50000000000000056169, 0.16666666666554404471,
                          0.041666666666573142611, 0.0083333333856677824706,
                          0.0013888888932488598181, 0.00019841170270440068401,
                          0.000024801504346997687255, 2.764018079620985113e-6,
                          2.7626357241447222855e-7);
  }
  static FASTMTL_INLINE double twice_atanh(double square) {
    return polynomial(square, 2.0, 0.66666666666666149594, 0.40000000000185747468,
                      0.28571428545454114534, 0.22222224080747673173, 0.1818174083250480451,
                      0.15386614042304007762, 0.13300374032674624337, 0.12110168728069217655,
                      0.083245065118608205757, 0.17044163562781398129);
  }
};

// x = n ln2 + r with |r| <= ln2 / 2, for a non-positive x from Series::lowest on.
template <class Real>
struct Reduced {
  Real r;
  typename Series<Real>::Int power;  // n in the place of the exponent
};

template <class Real>
FASTMTL_INLINE Reduced<Real> reduced(Real x) {
  using S = Series<Real>;
  using Int = typename S::Int;
  // The low bits of x / ln2 + round hold n.
  const Real shifted = x * Real(1.44269504088896340736) + S::round;
  const Real n = shifted - S::round;
  const Real r = (x - n * S::ln2_high) - n * S::ln2_low;
  return {r, Int(std::uint64_t(bits<Int>(shifted)) << S::mantissa)};
}

// x 2^n with n in the place of the exponent; of any n, though then it means nothing.
template <class Real>
FASTMTL_INLINE Real raised(Real x, typename Series<Real>::Int power) {
  using Int = typename Series<Real>::Int;
  using Bits = std::make_unsigned_t<Int>;
  return bits<Real>(Int(Bits(bits<Int>(x)) + Bits(power)));
}

// exp(x) for x <= 0, relative error of a few ulp; 0 below the smallest normal number.
template <class Real>
FASTMTL_INLINE Real exp_nonpositive(Real x) {
  using S = Series<Real>;
#ifdef FASTMTL_SPECIAL_FUNCTIONS
  if constexpr (sizeof(Real) == sizeof(float)) return x < S::lowest ? 0.0f : device_exp(x);
#endif
  const Reduced<Real> e = reduced(x);
  const Real mantissa = 1 + S::expm1(e.r);
  return x < S::lowest ? Real(0) : raised(mantissa, e.power);
}

// 2 atanh(s) = log((1 + s) / (1 - s)) for |s| <= 1/3.
template <class Real>
FASTMTL_INLINE Real twice_atanh(Real s) {
  return Series<Real>::twice_atanh(s * s) * s;
}

// log(x) for a normal x >= 1.
template <class Real>
FASTMTL_INLINE Real log_from_one(Real x) {
  using S = Series<Real>;
  using Int = typename S::Int;
  // x = 2^n m with 1 <= m < 2, folded to m < 4/3 so that s = (m - 1) / (m + 1) < 1/3 in size.
  const Int exponent = (bits<Int>(x) - S::one) >> S::mantissa;
  const Real m = bits<Real>(Int(bits<Int>(x) - Int(std::uint64_t(exponent) << S::mantissa)));
  const bool fold = m > Real(4.0 / 3);
  const Real folded = fold ? m * Real(0.5) : m;
  const Real n = Real(exponent) + (fold ? Real(1) : Real(0));
  return n * Real(0.693147180559945309417) + twice_atanh((folded - 1) / (folded + 1)) + (x - x);
}

// How q^gamma is computed: the common exponents need no exp.
enum class Gamma { zero, one, two, any };

inline Gamma gamma_kind(double gamma) {
  if (gamma == 0) return Gamma::zero;
  if (gamma == 1) return Gamma::one;
  return gamma == 2 ? Gamma::two : Gamma::any;
}

// Calls body with the kind as a constant.
template <class Body>
FASTMTL_KERNEL_INLINE void with_gamma(Gamma kind, const Body& body) {
  switch (kind) {
    case Gamma::zero:
      return body(std::integral_constant<Gamma, Gamma::zero>{});
    case Gamma::one:
      return body(std::integral_constant<Gamma, Gamma::one>{});
    case Gamma::two:
      return body(std::integral_constant<Gamma, Gamma::two>{});
    case Gamma::any:
      return body(std::integral_constant<Gamma, Gamma::any>{});
  }
}

// p = sigmoid(x), q = 1 - p and their logarithms, each to full relative accuracy.
template <class Real>
struct Sigmoid {
  Real p, q, log_p, log_q;
};

// From those of |x|: p, q and log(1 + exp(-|x|)).
template <class Real>
FASTMTL_INLINE Sigmoid<Real> with_sign(Real x, Real large, Real small, Real softplus) {
  const bool positive = x > 0;
  return {positive ? large : small, positive ? small : large, (positive ? Real(0) : x) - softplus,
          (positive ? -x : Real(0)) - softplus};
}

// As sigmoid, in fewer instructions on a device: relative errors below 2^-13, half of what rounding
// to float16 costs. log1p(e) / e is a Chebyshev interpolation on [0, 1], wrong by 2^-13.9 at most,
// and exp does without what rounding x / ln2 lost, at most 2^-17.
FASTMTL_INLINE Sigmoid<float> rough_sigmoid(float x) {
#ifdef FASTMTL_SPECIAL_FUNCTIONS
  const float e = ex2_approx(std::abs(x) * -1.44269502f);
#else
  const float e = exp_nonpositive(-std::abs(x));
#endif
  const float large = reciprocal(1 + e);
  const float softplus =
      e * polynomial(e, 0.999936819f, -0.49678874f, 0.305399984f, -0.156029522f, 0.0406634361f);
  return with_sign(x, large, e * large, softplus);
}

template <bool rough = false, class Real>
FASTMTL_INLINE Sigmoid<Real> sigmoid(Real x) {
  if constexpr (rough) return rough_sigmoid(x);
  const Real e = exp_nonpositive(-std::abs(x));
  const Real inverse = reciprocal((1 + e) * (2 + e));
  const Real large = inverse * (2 + e);                        // 1 / (1 + e)
  const Real softplus = twice_atanh(e * (inverse * (1 + e)));  // log1p(e)
  return with_sign(x, large, e * large, softplus);
}

template <Gamma kind, class Real>
FASTMTL_INLINE Real power(const Sigmoid<Real>& s, Real gamma) {
  if (kind == Gamma::zero) return Real(1);
  if (kind == Gamma::one) return s.q;
  if (kind == Gamma::two) return s.q * s.q;
  return exp_nonpositive(gamma * s.log_q);
}

// Whether a loss of elements of T may have the errors of rough_sigmoid, which a power of any gamma
// would raise.
template <class T, Gamma kind>
constexpr bool rough = sizeof(T) == 2 && kind != Gamma::any;

// Focal loss -q^gamma log p of the margin x.
template <Gamma kind, bool rough = false, class Real>
FASTMTL_INLINE Real focal(Real x, Real gamma) {
  const Sigmoid<Real> s = sigmoid<rough>(x);
  return -power<kind>(s, gamma) * s.log_p;
}

// Its derivative q^gamma (gamma p log p - q).
template <Gamma kind, bool rough = false, class Real>
FASTMTL_INLINE Real focal_slope(Real x, Real gamma) {
  const Sigmoid<Real> s = sigmoid<rough>(x);
  if (kind == Gamma::zero) return -s.q;
  return power<kind>(s, gamma) * (gamma * s.p * s.log_p - s.q);
}

// Both for an exponent of any kind, where no loop is compiled for each.
template <class Real>
FASTMTL_INLINE Real focal(Real x, Real gamma) {
  return gamma == 0 ? focal<Gamma::zero>(x, gamma) : focal<Gamma::any>(x, gamma);
}
template <class Real>
FASTMTL_INLINE Real focal_slope(Real x, Real gamma) {
  return gamma == 0 ? focal_slope<Gamma::zero>(x, gamma) : focal_slope<Gamma::any>(x, gamma);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
