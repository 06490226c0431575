// The arguments of a kernel from those of a Python call: one for every field, by position, those of
// the bases first. The compiler counts the fields and knows their types, so that a struct of
// kernels.h is all there is to declare.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <forward_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.h"

namespace fastmtl {

// The elements of Integers, for as long as a call lasts.
using Lists = std::forward_list<std::vector<std::int64_t>>;

// How a field is read from a Python object: false where that is none of its kind, maybe with a
// Python error beside it.
template <class Field, class = void>
struct Reader;

template <>
struct Reader<bool> {
  static constexpr const char* kind = "bool";
  static bool read(PyObject* from, bool& to, Lists&) {
    to = from == Py_True;
    return PyBool_Check(from);
  }
};

template <>
struct Reader<double> {
  static constexpr const char* kind = "float";
  static bool read(PyObject* from, double& to, Lists&) {
    to = PyFloat_AsDouble(from);
    return to != -1 || !PyErr_Occurred();
  }
};

// Sizes, and dtypes and reductions by their numbers.
template <class Number>
struct Reader<Number, std::enable_if_t<std::is_integral_v<Number> || std::is_enum_v<Number>>> {
  static constexpr const char* kind = "int64";
  static bool read(PyObject* from, Number& to, Lists&) {
    const long long value = PyLong_AsLongLong(from);
    to = Number(value);
    return value != -1 || !PyErr_Occurred();
  }
};

template <class T>
struct Reader<T*> {
  static constexpr const char* kind = "address";
  static bool read(PyObject* from, T*& to, Lists&) {
    to = static_cast<T*>(PyLong_AsVoidPtr(from));
    return to || !PyErr_Occurred();
  }
};

template <class... Fields>
bool read_tuple(PyObject* from, Lists& lists, Fields&... to) {
  if (!PyTuple_Check(from) || PyTuple_GET_SIZE(from) != sizeof...(Fields)) return false;
  Py_ssize_t i = 0;
  return (Reader<Fields>::read(PyTuple_GET_ITEM(from, i++), to, lists) && ...);
}

// threads, or (device, stream, workspace).
template <>
struct Reader<Execution> {
  static constexpr const char* kind = "execution";
  static bool read(PyObject* from, Execution& to, Lists& lists) {
    if (PyLong_Check(from)) return Reader<int>::read(from, to.threads, lists);
    return read_tuple(from, lists, to.device, to.stream, to.workspace);
  }
};

// (data, dtype, row_stride, column_stride).
template <>
struct Reader<Matrix> {
  static constexpr const char* kind = "matrix";
  static bool read(PyObject* from, Matrix& to, Lists& lists) {
    return read_tuple(from, lists, to.data, to.dtype, to.row_stride, to.column_stride);
  }
};

// (values, same).
template <>
struct Reader<PerTask> {
  static constexpr const char* kind = "number of every task";
  static bool read(PyObject* from, PerTask& to, Lists& lists) {
    return read_tuple(from, lists, to.values, to.same);
  }
};

template <>
struct Reader<Integers> {
  static constexpr const char* kind = "list of int64";
  static bool read(PyObject* from, Integers& to, Lists& lists) {
    const auto items = pybind11::reinterpret_steal<pybind11::object>(PySequence_Fast(from, ""));
    if (!items) return false;
    to.count = PySequence_Fast_GET_SIZE(items.ptr());
    std::vector<std::int64_t>& list = lists.emplace_front(to.count);
    to.data = list.data();
    for (std::int64_t i = 0; i < to.count; ++i)
      if (!Reader<std::int64_t>::read(PySequence_Fast_GET_ITEM(items.ptr(), i), list[i], lists))
        return false;
    return true;
  }
};

// An argument that cannot be read.
struct WrongArgument {
  std::size_t index;
  const char* kind;
};

// Converts to the type of any field, and to no struct with bases: such a one takes an argument for
// each of its fields.
struct Argument {
  PyObject* from;
  std::size_t index;
  Lists& lists;

  template <class Field, class = decltype(Reader<Field>::kind)>
  operator Field() const {
    Field field{};
    if (!Reader<Field>::read(from, field, lists)) throw WrongArgument{index, Reader<Field>::kind};
    return field;
  }
};

// Stands in for an argument to name its kind.
struct Kind {
  std::string& kinds;

  template <class Field, class = decltype(Reader<Field>::kind)>
  operator Field() const {
    if (!kinds.empty()) kinds += ", ";
    kinds += Reader<Field>::kind;
    return {};
  }
};

template <class Arguments, std::size_t... index>
auto accepts(std::index_sequence<index...>)
    -> decltype(Arguments{(void(index), std::declval<const Argument&>())...}, std::true_type{});
template <class Arguments>
std::false_type accepts(...);

// The fields of Arguments.
template <class Arguments, std::size_t least = 0>
constexpr std::size_t count_fields() {
  if constexpr (decltype(accepts<Arguments>(std::make_index_sequence<least + 1>{}))::value)
    return count_fields<Arguments, least + 1>();
  else
    return least;
}

template <class Arguments, std::size_t... index>
Arguments read_arguments(PyObject* const* from, Lists& lists, std::index_sequence<index...>) {
  return Arguments{Argument{from[index], index, lists}...};
}

template <class Arguments, std::size_t... index>
std::string kinds_of(std::index_sequence<index...>) {
  std::string kinds;
  static_cast<void>(Arguments{(void(index), Kind{kinds})...});
  return kinds;
}

}  // namespace fastmtl
