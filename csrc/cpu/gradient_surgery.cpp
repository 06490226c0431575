// Gradients that are changed by one another in turn, by their coefficients:
// fastmtl/backends/reference/gradient_surgery.py has the mathematics, and the same names.
#include "gradient_surgery.h"

#include <algorithm>

#include "cpu/dense.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

using Index = std::int64_t;

// change(i, j, coefficients, changed): how much of g_j to add to g'_i, of which these are the
// coefficients and the products with all gradients.
template <class Change>
void operate(const GradientSurgery& args, const Change& change) {
  const Index tasks = args.tasks;
  parallel_for(tasks, args.threads, tasks * tasks, [&](Index i) {
    Scratch<double> memory(tasks);
    double* changed = memory.get();
    double* coefficients = args.coefficients + i * tasks;
    std::copy_n(args.products + i * tasks, tasks, changed);
    std::fill_n(coefficients, tasks, 0.0);
    coefficients[i] = 1;
    for (Index visit = 0; visit < tasks; ++visit) {
      const Index j = args.order[i * tasks + visit];
      if (j < 0 || j >= tasks || j == i || !(args.products[j * tasks + j] > 0)) continue;
      const double added = change(i, j, coefficients, changed);
      if (added == 0) continue;
      coefficients[j] += added;
      add(added, args.products + j * tasks, tasks, changed);
    }
  });
}

}  // namespace

void pcgrad_coefficients(const GradientSurgery& args) {
  operate(args, [&](Index, Index j, const double*, const double* changed) {
    return projected(changed[j], args.products[j * args.tasks + j]);
  });
}

void gradvac_coefficients(const GradientVaccine& args) {
  const Index tasks = args.tasks;
  operate(args, [&](Index i, Index j, const double* coefficients, const double* changed) {
    const double own = args.products[i * tasks + i], other = args.products[j * tasks + j];
    const double square = dot(coefficients, changed, tasks);
    if (!(square > args.rounding * own)) return 0.0;
    return turned(changed[j], square, other, args.beta, args.phihat[i * tasks + j]);
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
