// Elements of images turned into numbers to compute with, and back as C casts do it, which is what SciPy does: fractions
// are cut off, integers wrap around.
#pragma once
#include "filters.hpp"
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

struct Boolean {
  std::uint8_t value;
};

template <class Number, class T>
CONVKIT_INLINE Number cast(T v) {
  if constexpr (sizeof(Number) < 4) {
    return static_cast<Number>(static_cast<std::int32_t>(v));
  } else if constexpr (sizeof(Number) == 4 && Number(-1) > Number(0)) {
    return static_cast<Number>(static_cast<std::int64_t>(v));
  } else if constexpr (Number(-1) > Number(0)) {
    return v > -1 ? static_cast<Number>(v) : static_cast<Number>(-static_cast<Number>(-v));
  } else {
    return static_cast<Number>(v);
  }
}

template <class Number, class T>
CONVKIT_INLINE T read(const char* from) {
  Number number;
  std::memcpy(&number, from, sizeof number);
  return static_cast<T>(number);
}

template <class Number, class T>
CONVKIT_INLINE void write(T v, char* to) {
  const Number number = cast<Number>(v);
  std::memcpy(to, &number, sizeof number);
}
template <>
CONVKIT_INLINE void write<Boolean, double>(double v, char* to) {
  *to = static_cast<std::uint8_t>(static_cast<std::int32_t>(v)) != 0;
}

// Steps that the compiler knows, so that it makes vectors of them.
template <class Number, class T>
void read_all(const char* from, std::ptrdiff_t step, T* to, std::int64_t count) {
  constexpr std::ptrdiff_t size = sizeof(Number);
  if (step == size) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = read<Number, T>(from + i * size);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = read<Number, T>(from + i * step);
  }
}
template <class Number, class T>
void write_all(const T* from, char* to, std::ptrdiff_t step, std::int64_t count) {
  constexpr std::ptrdiff_t size = sizeof(Number);
  if (step == size) {
    for (std::int64_t i = 0; i < count; ++i) write<Number>(from[i], to + i * size);
  } else {
    for (std::int64_t i = 0; i < count; ++i) write<Number>(from[i], to + i * step);
  }
}
template <class Number, class Raw, class T>
void round_all(T* line, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    char bytes[sizeof(Number)];
    write<Number>(line[i], bytes);
    line[i] = read<Raw, T>(bytes);
  }
}

// How a job's elements are read and written; chosen once a call.
template <class T>
struct ElementCalls {
  void (*read)(const char* from, std::ptrdiff_t step, T* to, std::int64_t count);
  void (*write)(const T* from, char* to, std::ptrdiff_t step, std::int64_t count);
  void (*round)(T* line, std::int64_t count);
};

template <class Number>
constexpr ElementCalls<double> calls_of = {read_all<Number, double>, write_all<Number, double>,
                                           round_all<Number, Number, double>};
template <>
inline constexpr ElementCalls<double> calls_of<Boolean> = {read_all<std::uint8_t, double>, write_all<Boolean, double>,
                                                           round_all<Boolean, std::uint8_t, double>};

template <class T>
ElementCalls<T> element_calls(Element element);

template <>
inline ElementCalls<float> element_calls<float>(Element) {
  return {read_all<float, float>, write_all<float, float>, nullptr};
}
template <>
inline ElementCalls<double> element_calls<double>(Element element) {
  switch (element) {
    case Element::boolean: return calls_of<Boolean>;
    case Element::i8: return calls_of<std::int8_t>;
    case Element::u8: return calls_of<std::uint8_t>;
    case Element::i16: return calls_of<std::int16_t>;
    case Element::u16: return calls_of<std::uint16_t>;
    case Element::i32: return calls_of<std::int32_t>;
    case Element::u32: return calls_of<std::uint32_t>;
    case Element::i64: return calls_of<std::int64_t>;
    case Element::u64: return calls_of<std::uint64_t>;
    case Element::f32: return calls_of<float>;
    default: return calls_of<double>;
  }
}

}  // namespace convkit::CONVKIT_ISA
