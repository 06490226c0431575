// The Python module of a backend: every line of kernels.def as a function or an entry. Addresses
// are integers, which fastmtl/backends/native has checked.
#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "arguments.h"
#include "kernels.h"

namespace py = pybind11;

namespace {

// A kernel as a Python function: a plain one, since pybind11's take longer than a small input does.
template <class Arguments, void (*fastmtl::Kernels::*kernel)(const Arguments&)>
class Function {
 public:
  static void add_to(py::module_& module, const char* name) {
    static const std::string takes = name + ("(" + kinds() + ")");
    method_ = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)),
               METH_FASTCALL, takes.c_str()};
    module.add_object(name, py::reinterpret_steal<py::object>(PyCFunction_New(&method_, nullptr)));
  }

 private:
  static constexpr auto fields = std::make_index_sequence<fastmtl::count_fields<Arguments>()>{};

  static std::string kinds() { return fastmtl::kinds_of<Arguments>(fields); }

  static PyObject* call(PyObject*, PyObject* const* from, Py_ssize_t count) {
    try {
      if (std::size_t(count) != fields.size())
        return wrong("got " + std::to_string(count) + " arguments");
      fastmtl::Lists lists;
      const Arguments arguments = fastmtl::read_arguments<Arguments>(from, lists, fields);
      // Without the lock, so that other Python threads run during a kernel.
      py::gil_scoped_release release;
      (fastmtl::kernels().*kernel)(arguments);
    } catch (const fastmtl::WrongArgument& at) {
      return wrong("argument " + std::to_string(at.index + 1) + ": expected " + at.kind + ", got " +
                   Py_TYPE(from[at.index])->tp_name);
    } catch (const std::invalid_argument& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
      return nullptr;
    } catch (const std::bad_alloc&) {
      return PyErr_NoMemory();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
      return nullptr;
    }
    Py_RETURN_NONE;
  }

  static PyObject* wrong(const std::string& what) {
    const std::string message = std::string(method_.ml_doc) + ": " + what;
    PyErr_SetString(PyExc_TypeError, message.c_str());
    return nullptr;
  }

  static inline PyMethodDef method_{};
};

}  // namespace

PYBIND11_MODULE(FASTMTL_MODULE, m) {
  m.doc() =
      "Kernels on plain pointers; see csrc/kernels.h. Their arguments:\n"
      "execution: threads, or (device, stream, workspace)\n"
      "matrix: (data, dtype, row_stride, column_stride); (0, 0, 0, 0) for none\n"
      "number of every task: (address, number where that is 0)\n"
      "address: 0 for none";
  const fastmtl::Kernels& kernels = fastmtl::kernels();
  py::set names;
  py::dict limits;
#define KERNEL(name, Arguments)                                              \
  if (kernels.name) {                                                        \
    Function<fastmtl::Arguments, &fastmtl::Kernels::name>::add_to(m, #name); \
    names.add(#name);                                                        \
  }
#define CUDA_QUERY(Result, name, parameters) \
  if (kernels.name) m.def(#name, kernels.name);
#define CUDA_LIMIT(name) \
  if (kernels.name) limits[#name] = kernels.name;
#include "kernels.def"
  m.attr("device") = kernels.device;
  m.attr("kernels") = py::frozenset(names);
  m.attr("limits") = limits;
  m.def("isa", [] { return fastmtl::kernels().isa; });
  m.def("use_isa", fastmtl::use_isa);
  m.def("unusable", [] {
    const auto unusable = fastmtl::kernels().unusable;
    return unusable ? unusable() : nullptr;
  });
}
