// The inventory, single kernels and the process's state as Python sees them, through ordinary pybind11.
#pragma once
#include <pybind11/pybind11.h>

namespace convkit::bindings {

void add_inventory(pybind11::module_& module);
void add_runner(pybind11::module_& module);
void add_process(pybind11::module_& module);
void add_profile(pybind11::module_& module);
void add_transpose(pybind11::module_& module);
void add_filters(pybind11::module_& module);
void add_images(pybind11::module_& module);
void add_unchanged(pybind11::module_& module);

}  // namespace convkit::bindings
