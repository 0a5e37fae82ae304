// The types Conv2d and ConvTranspose2d. They are themselves the fast ones: Python 3.11 gives no vectorcall to subclasses
// made in Python.
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "calls.hpp"
#include "chooser.hpp"
#include "gil.hpp"
#include "layer_arguments.hpp"
#include "layer_weights.hpp"
#include "parts.hpp"
#include "run.hpp"

namespace convkit::bindings {
namespace {

// What distinguishes the types. Arguments are w, bias, and then those that a copy repeats.
constexpr int at_w = 0, at_bias = 1, at_options = 2;
struct LayerType {
  const char* name;
  const char* const* names;
  int argument_count, positional;
  OptionPositions positions;
  int output_padding;                            // position, or -1
  int weight_scale, scale, shift, copy, memory;  // positions
  PyTypeObject* type;
  const ArgumentNames* argument_names;
};

constexpr const char* convolution_names[] = {
    "w",      "bias",       "stride",       "padding",     "dilation", "groups",
    "layout", "activation", "weight_scale", "scale",       "shift",    "residual_after",
    "copy",   "memory",     "algorithm",    "num_threads", "accuracy", "workspace_limit"};
constexpr const char* transposed_names[] = {
    "w",      "bias",       "stride",       "padding",  "output_padding", "groups",         "dilation",
    "layout", "activation", "weight_scale", "scale",    "shift",          "residual_after", "copy",
    "memory", "algorithm",  "num_threads",  "accuracy", "workspace_limit"};
constexpr int most_arguments = 19;

PyTypeObject convolution_object{}, transposed_object{};
LayerType convolution_type{
    "Conv2d", convolution_names,   18,     6, {2, 3, 4, 5, 6, 7, 11, 14, 15, 16, 17}, -1, 8, 9, 10, 12,
    13,       &convolution_object, nullptr};
LayerType transposed_type{
    "ConvTranspose2d",  transposed_names, 19, 7, {2, 3, 6, 5, 7, 8, 12, 15, 16, 17, 18}, 4, 9, 10, 11, 13, 14,
    &transposed_object, nullptr};

const LayerType& type_of(PyTypeObject* type) {
  return PyType_IsSubtype(type, &transposed_object) ? transposed_type : convolution_type;
}

constexpr const char* call_names[] = {"x", "out", "residual"};
constexpr const char* joined_names[] = {"parts", "residual"};
constexpr const char* update_names[] = {"w", "bias", "weight_scale", "scale", "shift"};

const ArgumentNames& call_argument_names() {
  static const ArgumentNames instance("__call__", call_names, std::size(call_names), 3, 1);
  return instance;
}
const ArgumentNames& joined_argument_names() {
  static const ArgumentNames instance("joined", joined_names, std::size(joined_names), 2, 1);
  return instance;
}
const ArgumentNames& update_argument_names() {
  static const ArgumentNames instance("update", update_names, 5, 2, 1);
  return instance;
}

// A plan with the packed weights that its kernel reads; a call holds it while it runs.
struct LayerPlan {
  PlanPointer plan;
  Held<LayerWeights> weights;
  std::shared_ptr<const Packed> packed;
  OwnWeights own;
};
using LayerPlanPointer = Held<const LayerPlan>;

struct Layer {
  explicit Layer() : plans(64) {}
  Options options;
  bool borrows = false;             // weights are not copied
  bool packs = true;                // false: every call packs on the way
  Reference given[most_arguments];  // the constructor's arguments, null where left out; w and bias stay null
  Held<LayerWeights> weights;
  PlanCache<LayerPlanPointer> plans;
  Shared<std::uint64_t> generation{0};  // of the plans

  // What update() replaces.
  Held<LayerWeights> present_weights() const {
    const Guard guard(this);
    return weights;
  }
};

struct LayerObject {
  PyObject_HEAD vectorcallfunc vectorcall;
  PyObject* weak_references;
  Layer* layer;
};

Layer& layer_of(PyObject* self) { return *reinterpret_cast<LayerObject*>(self)->layer; }

// torch.nn.Conv2d(in_channels, out_channels, kernel_size) is what many will type first.
void explain_torch(const char* name, PyObject* arguments, PyObject* keywords) {
  const bool number_first = PyTuple_GET_SIZE(arguments) > 0 && PyLong_Check(PyTuple_GET_ITEM(arguments, 0));
  bool torch_name = false;
  for (const char* keyword : {"in_channels", "out_channels", "kernel_size"}) {
    torch_name = torch_name || (keywords && PyDict_GetItemString(keywords, keyword));
  }
  if (number_first || torch_name) {
    const bool transposed = name == transposed_type.name;
    raise(
        PyExc_TypeError,
        std::string("convkit.") + name + " takes the weights themselves, unlike torch.nn." + name +
            "(in_channels, out_channels, kernel_size), which makes its own: pass an array of shape " +
            (transposed ? "(in_channels, out_channels/groups, KH, KW)" : "(out_channels, in_channels/groups, KH, KW)") +
            ", for instance convkit." + name +
            "(module.weight.detach().numpy(), module.bias.detach().numpy(), stride=1)");
  }
}

PyObject* layer_vectorcall(PyObject* self, PyObject* const* arguments, std::size_t flags, PyObject* keyword_names);

PyObject* layer_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  return guarded([&] {
    const LayerType& kind = type_of(type);
    explain_torch(kind.name, arguments, keywords);
    // Names and values as a vectorcall has them.
    const Py_ssize_t given = PyTuple_GET_SIZE(arguments), named = keywords ? PyDict_GET_SIZE(keywords) : 0;
    const Reference keyword_names(checked(PyTuple_New(named)));
    std::vector<PyObject*> arguments_of_call(static_cast<std::size_t>(given + named));
    const Reference own_keywords(keywords ? checked(PyDict_Copy(keywords)) : nullptr);  // keeps what is parsed alive
    for (Py_ssize_t i = 0; i < given; ++i)
      arguments_of_call[static_cast<std::size_t>(i)] = PyTuple_GET_ITEM(arguments, i);
    PyObject *name, *value;
    for (Py_ssize_t position = 0, i = 0; named && PyDict_Next(own_keywords.get(), &position, &name, &value); ++i) {
      PyTuple_SET_ITEM(keyword_names.get(), i, Py_NewRef(name));
      arguments_of_call[static_cast<std::size_t>(given + i)] = value;
    }
    PyObject* bound[ArgumentNames::most];
    kind.argument_names->bind(arguments_of_call.data(), given, keyword_names.get(), bound);

    auto layer = std::make_unique<Layer>();
    const ArrayArgument w(bound[at_w], "w");
    const ArrayArgument bias = optional_array(bound[at_bias], "bias");
    if (&kind == &transposed_type) {
      layer->options.op = Op::input_grad;
      layer->options.transposed = true;
    }
    parse_options(bound, kind.positions, layer->options);
    if (kind.output_padding >= 0 && bound[kind.output_padding]) {
      parse_pair(bound[kind.output_padding], "output_padding", 0, layer->options.extent);
    }
    check_weights(w, bias, layer->options);
    check_options(w, layer->options);
    for (int i = at_options; i < kind.argument_count; ++i) layer->given[i] = Reference::borrow(bound[i]);
    // An interned string need not be the object that was given: the layer keeps what its options point to.
    Opaque* const opaques[] = {&layer->options.algorithm, &layer->options.accuracy};
    const int places[] = {kind.positions.algorithm, kind.positions.accuracy};
    for (int i = 0; i < 2; ++i) {
      if (opaques[i]->kind != Opaque::none) layer->given[places[i]] = Reference::borrow(opaques[i]->value);
    }
    if (PyObject* value = bound[kind.copy]) layer->borrows = !parse_flag(value, "copy");
    if (PyObject* value = bound[kind.memory]) layer->packs = parse_memory(value);
    ChannelValues values{frozen_copy(bias), values_of(bound[kind.weight_scale], "weight_scale", w, layer->options),
                         values_of(bound[kind.scale], "scale", w, layer->options),
                         values_of(bound[kind.shift], "shift", w, layer->options)};
    if (values.scale) layer->options.scale.kind = Factor::array;
    if (values.shift) layer->options.shift.kind = Factor::array;
    layer->weights = make_held<LayerWeights>(w, std::move(values), layer->options, layer->borrows);

    auto* self = reinterpret_cast<LayerObject*>(checked(type->tp_alloc(type, 0)));
    self->vectorcall = layer_vectorcall;
    self->weak_references = nullptr;
    self->layer = layer.release();
    return reinterpret_cast<PyObject*>(self);
  });
}

void layer_dealloc(PyObject* self) {
  auto* object = reinterpret_cast<LayerObject*>(self);
  if (object->weak_references) PyObject_ClearWeakRefs(self);
  delete object->layer;
  Py_TYPE(self)->tp_free(self);
}

void drop_plans_of_other_generations(Layer& layer) {
  PlanCache<LayerPlanPointer>::Entries dropped;
  const Guard guard(&layer);
  dropped = layer.plans.take_all();
  layer.generation = plan_generation();
}

// Keeps a plan unless another generation or other weights have come since it was looked for.
bool keep(Layer& layer, const Key& key, const LayerPlanPointer& made, std::uint64_t generation) {
  PlanCache<LayerPlanPointer>::Entries dropped;
  const Guard guard(&layer);
  if (generation != plan_generation() || layer.generation != generation || made->weights != layer.weights) return false;
  dropped = layer.plans.insert(key, made);
  return true;
}

LayerPlanPointer find_plan(Layer& layer, const Held<LayerWeights>& weights, const Operands& operands, int threads) {
  Key key;
  key.add(threads | context_token() << 32);
  key.add_arrays(operands.x, operands.residual, operands.out);
  if (layer.options.residual_after) key.add(adds_late_in_place(operands, layer.options));
  if (layer.borrows) {
    key.add_arrays(operands.w);
    key.add(static_cast<bool>(operands.weight_scale));
  }
  const std::uint64_t generation = plan_generation();
  if (layer.generation != generation) drop_plans_of_other_generations(layer);
  LayerPlanPointer found;
  {
    const Guard guard(&layer);
    if (const LayerPlanPointer* const kept = layer.plans.find(key)) found = *kept;
  }
  PlanPointer plan;
  if (found) {
    ++counters().plan_hits;
    if (found->weights == weights) return found;
    plan = found->plan;  // the weights were updated since
  } else {
    ++counters().plan_misses;
    plan = make_plan(operands, layer.options, threads, layer.packs);
  }
  auto packed = weights->packed_for(*plan);
  OwnWeights own{nullptr, nullptr, weights->finite()};
  if (packed) (plan->packing.id[0] ? own.packed : own.dense) = packed->block.data();
  const LayerPlanPointer made = make_held<LayerPlan>(LayerPlan{plan, weights, std::move(packed), own});
  // The chooser ran Python code: what it did to plans or weights meanwhile wins over what was found for the old ones.
  if (!plan->settle && keep(layer, key, made, generation)) weights->prune();
  return made;
}

// Adds what the layer has itself to the operands of a call.
inline void add_own(const Layer& layer, const LayerWeights& weights, Operands& operands) {
  operands.w = ArrayArgument(weights.w(), "w");
  if (weights.bias()) operands.bias = ArrayArgument(weights.bias(), "bias");
  if (weights.weight_scale() && !layer.packs) {
    operands.weight_scale = ArrayArgument(weights.weight_scale(), "weight_scale");
  }
  if (weights.scale()) operands.scale = ArrayArgument(weights.scale(), "scale");
  if (weights.shift()) operands.shift = ArrayArgument(weights.shift(), "shift");
}

PyObject* layer_vectorcall(PyObject* self, PyObject* const* arguments, std::size_t flags, PyObject* keyword_names) {
  return guarded([&] {
    PyObject* values[std::size(call_names)] = {};
    const Py_ssize_t given = PyVectorcall_NARGS(flags);
    if (given == 1 && !keyword_names) {
      values[0] = arguments[0];
    } else {
      call_argument_names().bind(arguments, given, keyword_names, values);
    }
    Layer& layer = layer_of(self);
    const auto weights = layer.present_weights();
    Operands operands;
    operands.x = ArrayArgument(values[0], "x");
    add_own(layer, *weights, operands);
    operands.out = optional_array(values[1], "out");
    operands.residual = optional_array(values[2], "residual");
    ++counters().calls;
    check_out_operands(operands, true);
    const LayerPlanPointer entry = find_plan(layer, weights, operands, resolve_threads(layer.options));
    return run_plan(*entry->plan, operands, layer.options, &entry->own, values[1]);
  });
}

PyObject* layer_joined(PyObject* self, PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
  return guarded([&] {
    PyObject* values[std::size(joined_names)] = {};
    joined_argument_names().bind(arguments, given, keyword_names, values);
    Layer& layer = layer_of(self);
    if (layer.options.layout != Layout::nhwc) {
      raise(PyExc_ValueError, "parts are images (N, H, W, C): the layer must have layout='NHWC'");
    }
    const PartsArgument parts(values[0]);
    const Reference frame = parts.frame();
    const auto weights = layer.present_weights();
    Operands operands;
    operands.x = ArrayArgument(frame.get(), "x");
    add_own(layer, *weights, operands);
    operands.residual = optional_array(values[1], "residual");
    ++counters().calls;
    const LayerPlanPointer entry = find_plan(layer, weights, operands, resolve_threads(layer.options));
    const Plan& plan = *entry->plan;
    const bool reads = plan.kernel && plan.kernel->reads_parts && plan.problem.groups == 1;
    Reference joined;
    if (plan.kernel && !reads) {
      joined = parts.joined(plan.threads);
      operands.x = ArrayArgument(joined.get(), "x");
    }
    return run_plan(plan, operands, layer.options, &entry->own, nullptr, reads ? &parts.parts() : nullptr);
  });
}

// Replaces the weights, if they are still `old`.
bool replace(Layer& layer, const Held<LayerWeights>& old, Held<LayerWeights> made) {
  std::vector<LayerPlanPointer> dropped;
  const Guard guard(&layer);
  if (layer.weights != old) return false;
  // The plans stay; the packings of the old weights go now and not at each plan's next call.
  layer.plans.each([&](LayerPlanPointer& entry) {
    auto bare = make_held<LayerPlan>(LayerPlan{entry->plan, {}, {}, {}});
    dropped.push_back(std::exchange(entry, std::move(bare)));
  });
  layer.weights = std::move(made);
  return true;
}

PyObject* layer_update(PyObject* self, PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
  return guarded([&]() -> PyObject* {
    PyObject* values[ArgumentNames::most];
    update_argument_names().bind(arguments, given, keyword_names, values);
    const ArrayArgument w(values[0], "w"), bias = optional_array(values[1], "bias");
    Layer& layer = layer_of(self);
    check_weights(w, bias, layer.options);
    const std::string self_name = std::string("this ") + type_of(Py_TYPE(self)).name;
    auto weights = layer.present_weights();
    const ArrayArgument old(weights->w(), "w");
    if (w.dtype() != old.dtype()) {
      raise(PyExc_TypeError,
            std::string("w has dtype ") + dtype_name(w.dtype()) + ", " + self_name + " has " + dtype_name(old.dtype()));
    }
    if (!std::equal(w.shape(), w.shape() + 4, old.shape())) {
      raise(PyExc_ValueError, "w has shape " + shape_text(w) + ", " + self_name + " has " + shape_text(old));
    }
    if (static_cast<bool>(bias) != (weights->bias() != nullptr)) {
      raise(PyExc_ValueError, self_name + (bias ? " was made without a bias" : " has a bias: update it too"));
    }
    // What is left out stays; only what the layer has can be given.
    const auto updated = [&](PyObject* given_values, const char* name, PyObject* own) {
      if (!given_values || given_values == Py_None) return Reference::borrow(own);
      if (!own) raise(PyExc_ValueError, self_name + " was made without a " + name);
      return values_of(given_values, name, w, layer.options);
    };
    for (;;) {
      ChannelValues channel_values{frozen_copy(bias), values_of(values[2], "weight_scale", w, layer.options),
                                   updated(values[3], "scale", weights->scale()),
                                   updated(values[4], "shift", weights->shift())};
      auto made = make_held<LayerWeights>(w, std::move(channel_values), layer.options, layer.borrows);
      if (replace(layer, weights, std::move(made))) Py_RETURN_NONE;
      weights = layer.present_weights();  // another update() came first: what it gave of what this one leaves out stays
    }
  });
}

PyObject* layer_repr(PyObject* self) {
  return guarded([&] {
    const Layer& layer = layer_of(self);
    const auto weights = layer.present_weights();
    const ArrayArgument w(weights->w(), "w");
    const LayerType& kind = type_of(Py_TYPE(self));
    const npy_intp first = w.shape()[0], second = w.shape()[1] * layer.options.groups;
    const bool transposed = layer.options.transposed;
    std::string text = std::string("<convkit.") + kind.name + " " + std::to_string(transposed ? first : second) +
                       " -> " + std::to_string(transposed ? second : first) + ", " + std::to_string(w.shape()[2]) +
                       "x" + std::to_string(w.shape()[3]) + ", " + dtype_name(w.dtype()) +
                       (weights->bias() ? ", bias" : "");
    for (int i = at_options; i < kind.argument_count; ++i) {
      PyObject* value = layer.given[i].get();
      if (!value || value == Py_None) continue;
      text += std::string(", ") + kind.names[i];
      if (i == kind.weight_scale || i == kind.scale || i == kind.shift) continue;
      const Reference value_text(checked(PyObject_Repr(value)));
      const char* utf8 = PyUnicode_AsUTF8(value_text.get());
      if (!utf8) throw PythonError{};
      text += std::string("=") + utf8;
    }
    text += "; " + std::to_string(weights->weight_bytes()) + " bytes of weights, " +
            std::to_string(weights->packed_bytes()) + " packed>";
    return checked(PyUnicode_FromString(text.c_str()));
  });
}

// Arguments that make an equal layer: what copy and pickle store. Packings are made anew.
PyObject* layer_getnewargs(PyObject* self, PyObject*) {
  return guarded([&] {
    const Layer& layer = layer_of(self);
    const auto weights = layer.present_weights();
    const LayerType& kind = type_of(Py_TYPE(self));
    const Reference keywords(checked(PyDict_New()));
    for (int i = at_options; i < kind.argument_count; ++i) {
      PyObject* value = layer.given[i].get();
      if (i == kind.weight_scale) value = weights->weight_scale();  // null where w is scaled already
      if (i == kind.scale) value = weights->scale();
      if (i == kind.shift) value = weights->shift();
      if (value && PyDict_SetItemString(keywords.get(), kind.names[i], value) < 0) throw PythonError{};
    }
    PyObject* bias = weights->bias();
    return checked(Py_BuildValue("((OO)O)", weights->w(), bias ? bias : Py_None, keywords.get()));
  });
}

PyObject* layer_weight(PyObject* self, void*) { return Py_NewRef(layer_of(self).present_weights()->w()); }

PyObject* layer_bias(PyObject* self, void*) {
  const auto weights = layer_of(self).present_weights();
  PyObject* bias = weights->bias();
  return Py_NewRef(bias ? bias : Py_None);
}

PyObject* layer_nbytes(PyObject* self, void*) {
  const auto weights = layer_of(self).present_weights();
  return PyLong_FromLongLong(weights->weight_bytes() + weights->packed_bytes());
}

PyObject* layer_packed_nbytes(PyObject* self, void*) {
  return PyLong_FromLongLong(layer_of(self).present_weights()->packed_bytes());
}

PyMethodDef methods[] = {
    {"update", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(layer_update)), METH_FASTCALL | METH_KEYWORDS,
     layer_update_doc},
    {"joined", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(layer_joined)), METH_FASTCALL | METH_KEYWORDS,
     layer_joined_doc},
    {"__getnewargs_ex__", layer_getnewargs, METH_NOARGS, "Constructor arguments for copy and pickle."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"weight", layer_weight, nullptr, "The layer's own weights, OIHW, read-only; or what it has borrowed.", nullptr},
    {"bias", layer_bias, nullptr, "The layer's own bias, read-only, or None.", nullptr},
    {"nbytes", layer_nbytes, nullptr,
     "Bytes that the layer holds: weights that are its own, bias, factors and all packings made so far.", nullptr},
    {"packed_nbytes", layer_packed_nbytes, nullptr, "Bytes of the packings made so far.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

void add_type(PyObject* module, LayerType& kind, const char* full_name, const char* documentation) {
  // Outlives the interpreter's last call, as the type does.
  kind.argument_names = new ArgumentNames(kind.name, kind.names, kind.argument_count, kind.positional, 1);
  PyTypeObject& type = *kind.type;
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);  // a static type lives as long as the process
  type.tp_name = full_name;
  type.tp_doc = documentation;
  type.tp_basicsize = sizeof(LayerObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL;
  type.tp_vectorcall_offset = offsetof(LayerObject, vectorcall);
  type.tp_weaklistoffset = offsetof(LayerObject, weak_references);
  type.tp_call = PyVectorcall_Call;
  type.tp_new = layer_new;
  type.tp_dealloc = layer_dealloc;
  type.tp_repr = layer_repr;
  type.tp_methods = methods;
  type.tp_getset = properties;
  if (PyType_Ready(&type) < 0) throw PythonError{};
  if (PyModule_AddObjectRef(module, kind.name, reinterpret_cast<PyObject*>(&type)) < 0) throw PythonError{};
}

}  // namespace

void add_layer(PyObject* module) {
  call_argument_names();
  joined_argument_names();
  update_argument_names();
  add_type(module, convolution_type, "convkit.Conv2d", layer_doc);
  add_type(module, transposed_type, "convkit.ConvTranspose2d", transposed_layer_doc);
}

}  // namespace convkit::bindings
