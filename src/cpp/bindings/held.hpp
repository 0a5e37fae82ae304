// Pointers that share what they point to, counted as the interpreter allows: where it has a GIL, that is the lock of the
// count as well, and a plain count saves every call four atomic operations. So whoever
// copies or destroys one needs the GIL.
#pragma once
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "free_threading.hpp"

namespace convkit::bindings {

#ifdef Py_GIL_DISABLED

template <class T>
using Held = std::shared_ptr<T>;

template <class T, class... Arguments>
Held<T> make_held(Arguments&&... arguments) {
  return std::make_shared<T>(std::forward<Arguments>(arguments)...);
}

#else

template <class T>
struct Counted {
  template <class... Arguments>
  explicit Counted(Arguments&&... arguments) : value(std::forward<Arguments>(arguments)...) {}
  std::size_t holders = 1;
  T value;
};

template <class T>
class Held {
  using Own = Counted<std::remove_const_t<T>>;

 public:
  Held() = default;
  explicit Held(Own* counted) : counted_(counted) {}  // takes over the count of its making
  Held(const Held& other) : counted_(other.counted_) {
    if (counted_) ++counted_->holders;
  }
  Held(Held&& other) noexcept : counted_(std::exchange(other.counted_, nullptr)) {}
  Held& operator=(Held other) noexcept {
    std::swap(counted_, other.counted_);
    return *this;
  }
  ~Held() {
    if (counted_ && --counted_->holders == 0) delete counted_;
  }

  T& operator*() const { return counted_->value; }
  T* operator->() const { return &counted_->value; }
  explicit operator bool() const { return counted_; }
  bool operator==(const Held& other) const { return counted_ == other.counted_; }
  bool operator!=(const Held& other) const { return counted_ != other.counted_; }
  operator Held<const T>() && { return Held<const T>(std::exchange(counted_, nullptr)); }

 private:
  Own* counted_ = nullptr;
};

template <class T, class... Arguments>
Held<T> make_held(Arguments&&... arguments) {
  return Held<T>(new Counted<T>(std::forward<Arguments>(arguments)...));
}

#endif

}  // namespace convkit::bindings
