// The public calls, as raw entries: METH_FASTCALL | METH_KEYWORDS and vectorcall. pybind11's dispatcher alone would
// cost more than their whole share of a small convolution.
#pragma once
#include <Python.h>

namespace convkit::bindings {

// Adds conv2d and problem_of to the module. Throws PythonError.
void add_conv2d(PyObject* module);
// Adds conv2d_input and conv_transpose2d to the module. Throws PythonError.
void add_transposed(PyObject* module);
// Adds conv2d_weight to the module. Throws PythonError.
void add_weight_gradient(PyObject* module);
// Adds the types Conv2d and ConvTranspose2d to the module. Throws PythonError.
void add_layer(PyObject* module);

extern const char conv2d_doc[];
extern const char conv2d_input_doc[];
extern const char conv2d_weight_doc[];
extern const char conv_transpose2d_doc[];
extern const char layer_doc[];
extern const char transposed_layer_doc[];
extern const char layer_joined_doc[];
extern const char layer_update_doc[];

}  // namespace convkit::bindings
