// Python bindings: pointers as integers, checked by fastmtl/backends/native.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace py = pybind11;

namespace pybind11::detail {

// A number of threads for the CPU, or (device, stream, workspace) for CUDA.
template <>
struct type_caster<fastmtl::Execution> {
  PYBIND11_TYPE_CASTER(fastmtl::Execution, const_name("int | tuple[int, int, int]"));

  bool load(handle source, bool) {
    PyObject* from = source.ptr();
    if (PyLong_Check(from)) {
      value = {int(PyLong_AsLong(from)), 0, nullptr, nullptr};
    } else if (PyTuple_Check(from) && PyTuple_GET_SIZE(from) == 3) {
      value = {1, int(PyLong_AsLong(PyTuple_GET_ITEM(from, 0))),
               PyLong_AsVoidPtr(PyTuple_GET_ITEM(from, 1)),
               PyLong_AsVoidPtr(PyTuple_GET_ITEM(from, 2))};
    } else {
      return false;
    }
    return !PyErr_Occurred();
  }
};

}  // namespace pybind11::detail

namespace {

using Address = std::uintptr_t;                                        // 0: absent
using Strided = std::tuple<Address, int, std::int64_t, std::int64_t>;  // data, dtype, strides

using fastmtl::Execution;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

fastmtl::Matrix matrix(const Strided& m) {
  return {pointer(std::get<0>(m)), fastmtl::DType(std::get<1>(m)), std::get<2>(m), std::get<3>(m)};
}

// Without the lock, so that other Python threads run during a kernel.
template <class Kernel, class Args>
void launch(Kernel kernel, const Args& args) {
  py::gil_scoped_release release;
  kernel(args);
}

fastmtl::FocalLoss focal_loss(const Strided& logits, const Strided& targets, const Strided& mask,
                              Address pos_weight, std::int64_t rows, std::int64_t tasks,
                              double gamma, int reduction, const Execution& on) {
  return {on,
          matrix(logits),
          matrix(targets),
          matrix(mask),
          pointer(pos_weight),
          rows,
          tasks,
          gamma,
          fastmtl::Reduction(reduction)};
}

void focal_loss_forward(const Strided& logits, const Strided& targets, const Strided& mask,
                        Address pos_weight, std::int64_t rows, std::int64_t tasks, double gamma,
                        int reduction, const Execution& on, Address loss, Address scale) {
  launch(fastmtl::kernels().focal_loss_forward,
         fastmtl::FocalLossForward{
             focal_loss(logits, targets, mask, pos_weight, rows, tasks, gamma, reduction, on),
             pointer(loss), pointer(scale)});
}

void focal_loss_backward(const Strided& logits, const Strided& targets, const Strided& mask,
                         Address pos_weight, std::int64_t rows, std::int64_t tasks, double gamma,
                         int reduction, const Execution& on, const Strided& grad_loss,
                         Address scale, Address grad_logits) {
  launch(fastmtl::kernels().focal_loss_backward,
         fastmtl::FocalLossBackward{
             focal_loss(logits, targets, mask, pos_weight, rows, tasks, gamma, reduction, on),
             matrix(grad_loss), pointer(scale), pointer(grad_logits)});
}

fastmtl::GroupedFocalLoss grouped_focal_loss(const Strided& logits, const Strided& targets,
                                             const std::vector<std::int64_t>& group_sizes,
                                             Address class_weight, std::int64_t rows, double gamma,
                                             int reduction, const Execution& on) {
  return {on,
          matrix(logits),
          matrix(targets),
          group_sizes.data(),
          pointer(class_weight),
          rows,
          std::int64_t(group_sizes.size()),
          gamma,
          fastmtl::Reduction(reduction)};
}

void grouped_focal_loss_forward(const Strided& logits, const Strided& targets,
                                const std::vector<std::int64_t>& group_sizes, Address class_weight,
                                std::int64_t rows, double gamma, int reduction, const Execution& on,
                                Address loss, Address scale) {
  launch(
      fastmtl::kernels().grouped_focal_loss_forward,
      fastmtl::GroupedFocalLossForward{grouped_focal_loss(logits, targets, group_sizes,
                                                          class_weight, rows, gamma, reduction, on),
                                       pointer(loss), pointer(scale)});
}

void grouped_focal_loss_backward(const Strided& logits, const Strided& targets,
                                 const std::vector<std::int64_t>& group_sizes, Address class_weight,
                                 std::int64_t rows, double gamma, int reduction,
                                 const Execution& on, const Strided& grad_loss, Address scale,
                                 Address grad_logits) {
  launch(fastmtl::kernels().grouped_focal_loss_backward,
         fastmtl::GroupedFocalLossBackward{
             grouped_focal_loss(logits, targets, group_sizes, class_weight, rows, gamma, reduction,
                                on),
             matrix(grad_loss), pointer(scale), pointer(grad_logits)});
}

void row_dots(const Strided& a, const Strided& b, std::int64_t rows, std::int64_t columns,
              bool accumulate, Address out, const Execution& on) {
  launch(fastmtl::kernels().row_dots,
         fastmtl::RowDots{on, matrix(a), matrix(b), rows, columns, accumulate, pointer(out)});
}

void scale_rows(const Strided& a, Address factor, std::int64_t rows, std::int64_t columns,
                Address out, const Execution& on) {
  launch(fastmtl::kernels().scale_rows,
         fastmtl::ScaleRows{on, matrix(a), pointer(factor), rows, columns, pointer(out)});
}

void least_norm_weights(int dtype, Address gramian, std::int64_t tasks, std::int64_t iterations,
                        Address out, const Execution& on) {
  launch(fastmtl::kernels().least_norm_weights,
         fastmtl::LeastNormWeights{on, fastmtl::DType(dtype), pointer(gramian), tasks, iterations,
                                   pointer(out)});
}

void gram_triangle(int dtype, Address inputs, std::int64_t matrices, std::int64_t samples,
                   std::int64_t features, Address out, const Execution& on) {
  launch(fastmtl::kernels().gram_triangle,
         fastmtl::GramTriangle{on, fastmtl::DType(dtype), pointer(inputs), matrices, samples,
                               features, pointer(out)});
}

void gram_squares(int dtype, Address grads, Address weights, std::int64_t task_stride,
                  std::int64_t tasks, std::int64_t samples, std::int64_t outputs, Address out,
                  const Execution& on) {
  launch(fastmtl::kernels().gram_squares,
         fastmtl::GramSquares{on, fastmtl::DType(dtype), pointer(grads), pointer(weights),
                              task_stride, tasks, samples, outputs, pointer(out)});
}

void gram_pairs(int dtype, Address grads, Address weights, std::int64_t tasks, std::int64_t samples,
                std::int64_t outputs, Address out, const Execution& on) {
  launch(fastmtl::kernels().gram_pairs,
         fastmtl::GramPairs{on, fastmtl::DType(dtype), pointer(grads), pointer(weights), tasks,
                            samples, outputs, pointer(out)});
}

fastmtl::GraphFusion graph_fusion(int dtype, Address vertices, Address importance, Address edges,
                                  Address edge_vertices, std::int64_t batch,
                                  std::int64_t vertex_count, std::int64_t features,
                                  std::int64_t edge_count, std::int64_t edge_features, double theta,
                                  const Execution& on) {
  return {on,
          fastmtl::DType(dtype),
          pointer(vertices),
          pointer(importance),
          static_cast<const std::int64_t*>(pointer(edges)),
          pointer(edge_vertices),
          batch,
          vertex_count,
          features,
          edge_count,
          edge_features,
          theta};
}

void graph_fusion_forward(int dtype, Address vertices, Address importance, Address edges,
                          Address edge_vertices, std::int64_t batch, std::int64_t vertex_count,
                          std::int64_t features, std::int64_t edge_count,
                          std::int64_t edge_features, double theta, const Execution& on,
                          Address weights, Address fused, Address stats) {
  launch(fastmtl::kernels().graph_fusion_forward,
         fastmtl::GraphFusionForward{
             graph_fusion(dtype, vertices, importance, edges, edge_vertices, batch, vertex_count,
                          features, edge_count, edge_features, theta, on),
             pointer(weights), pointer(fused), pointer(stats)});
}

void graph_fusion_backward(int dtype, Address vertices, Address importance, Address edges,
                           Address edge_vertices, std::int64_t batch, std::int64_t vertex_count,
                           std::int64_t features, std::int64_t edge_count,
                           std::int64_t edge_features, double theta, const Execution& on,
                           Address stats, Address grad_weights, Address grad_fused,
                           Address grad_vertices, Address grad_importance,
                           Address grad_edge_vertices) {
  launch(fastmtl::kernels().graph_fusion_backward,
         fastmtl::GraphFusionBackward{
             graph_fusion(dtype, vertices, importance, edges, edge_vertices, batch, vertex_count,
                          features, edge_count, edge_features, theta, on),
             pointer(stats), pointer(grad_weights), pointer(grad_fused), pointer(grad_vertices),
             pointer(grad_importance), pointer(grad_edge_vertices)});
}

fastmtl::TaskGRU task_gru(int dtype, Address weight_hh, Address starts, Address lengths,
                          std::int64_t tasks, std::int64_t directions, std::int64_t batch,
                          std::int64_t rows, std::int64_t hidden, std::int64_t gates_task_stride,
                          std::int64_t gates_row_stride, const Execution& on) {
  return {on,
          fastmtl::DType(dtype),
          pointer(weight_hh),
          static_cast<const std::int64_t*>(pointer(starts)),
          static_cast<const std::int64_t*>(pointer(lengths)),
          tasks,
          directions,
          batch,
          rows,
          hidden,
          gates_task_stride,
          gates_row_stride};
}

fastmtl::TaskGRUForward task_gru_forward(
    int dtype, Address weight_hh, Address starts, Address lengths, std::int64_t tasks,
    std::int64_t directions, std::int64_t batch, std::int64_t rows, std::int64_t hidden,
    std::int64_t gates_task_stride, std::int64_t gates_row_stride, const Execution& on,
    Address bias_ih, Address bias_hh, Address gates, Address hidden_n, Address output) {
  return {task_gru(dtype, weight_hh, starts, lengths, tasks, directions, batch, rows, hidden,
                   gates_task_stride, gates_row_stride, on),
          pointer(bias_ih),
          pointer(bias_hh),
          pointer(gates),
          pointer(hidden_n),
          pointer(output)};
}

fastmtl::TaskGRUBackward task_gru_backward(
    int dtype, Address weight_hh, Address starts, Address lengths, std::int64_t tasks,
    std::int64_t directions, std::int64_t batch, std::int64_t rows, std::int64_t hidden,
    std::int64_t gates_task_stride, std::int64_t gates_row_stride, const Execution& on,
    Address gates, Address hidden_n, Address output, Address grad_output, Address grad_gates,
    Address grad_recurrent, Address grad_bias) {
  return {task_gru(dtype, weight_hh, starts, lengths, tasks, directions, batch, rows, hidden,
                   gates_task_stride, gates_row_stride, on),
          pointer(gates),
          pointer(hidden_n),
          pointer(output),
          pointer(grad_output),
          pointer(grad_gates),
          pointer(grad_recurrent),
          pointer(grad_bias)};
}

// A kernel on the arguments that `make` gathers.
template <class Kernel, class Args, class... Parameters>
auto launching(Kernel fastmtl::Kernels::* kernel, Args (*make)(Parameters...)) {
  return [=](Parameters... parameters) { launch(fastmtl::kernels().*kernel, make(parameters...)); };
}

// The same with those of one time step behind them.
template <class Args, class... Parameters>
auto launching_forward_step(Args (*make)(Parameters...)) {
  return [=](Parameters... parameters, std::int64_t step, std::int64_t running, Address products,
             Address states) {
    launch(fastmtl::kernels().task_gru_forward_step,
           fastmtl::TaskGRUForwardStep{make(parameters...), step, running, pointer(products),
                                       pointer(states)});
  };
}

template <class Args, class... Parameters>
auto launching_backward_step(Args (*make)(Parameters...)) {
  return [=](Parameters... parameters, std::int64_t step, std::int64_t running, Address grads,
             Address carry, Address sums) {
    launch(fastmtl::kernels().task_gru_backward_step,
           fastmtl::TaskGRUBackwardStep{make(parameters...), step, running, pointer(grads),
                                        pointer(carry), pointer(sums)});
  };
}

}  // namespace

PYBIND11_MODULE(FASTMTL_MODULE, m) {
  m.doc() = "Kernels on plain pointers; see csrc/kernels.h.";
  m.def("isa", [] { return fastmtl::kernels().isa; });
  m.def("use_isa", fastmtl::use_isa);
  m.def("focal_loss_forward", focal_loss_forward);
  m.def("focal_loss_backward", focal_loss_backward);
  m.def("grouped_focal_loss_forward", grouped_focal_loss_forward);
  m.def("grouped_focal_loss_backward", grouped_focal_loss_backward);
  m.def("row_dots", row_dots);
  m.def("scale_rows", scale_rows);
  m.def("least_norm_weights", least_norm_weights);
  m.def("graph_fusion_forward", graph_fusion_forward);
  m.def("graph_fusion_backward", graph_fusion_backward);
  m.def("task_gru_forward", launching(&fastmtl::Kernels::task_gru_forward, task_gru_forward));
  m.def("task_gru_backward", launching(&fastmtl::Kernels::task_gru_backward, task_gru_backward));
  // What not every backend has.
  const fastmtl::Kernels& kernels = fastmtl::kernels();
  if (kernels.gram_triangle) m.def("gram_triangle", gram_triangle);
  if (kernels.gram_squares) m.def("gram_squares", gram_squares);
  if (kernels.gram_pairs) m.def("gram_pairs", gram_pairs);
  if (kernels.unusable) {
    m.def("unusable", kernels.unusable);
    m.def("focal_loss_workspace", kernels.focal_loss_workspace);
    m.def("grouped_focal_loss_workspace", kernels.grouped_focal_loss_workspace);
    m.def("row_dots_workspace", kernels.row_dots_workspace);
    m.def("task_gru_workspace", kernels.task_gru_workspace);
    m.def("task_gru_in_one_launch", kernels.task_gru_in_one_launch);
    m.def("task_gru_forward_step", launching_forward_step(task_gru_forward));
    m.def("task_gru_backward_step", launching_backward_step(task_gru_backward));
  }
}
