// Product<In, Acc, Group>: what a register tile does with two vectors of In to add to a vector of sums of Acc. A step of the
// reduction takes Group neighbouring elements: instructions that add up products of 16 or 8 bits take 2 or 4 at once, and
// a panel holds them side by side in each lane.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <class In, class Acc, int Group>
struct Product;

template <class T>
struct Product<T, T, 1> {
  static constexpr int group = 1;
  static constexpr int vector = Vec<T>::lanes * group;  // elements of a panel in one register

  static CONVKIT_INLINE typename Vec<T>::Reg broadcast(const T* a) { return Vec<T>::broadcast(a); }
  // Of whole registers or of halves.
  template <class Reg>
  static CONVKIT_INLINE Reg multiply_add(Reg a, Reg b, Reg sum) {
    return a * b + sum;
  }
};

// The one whose operands and sums are of one type.
template <class T>
using ProductOf = Product<T, T, 1>;

}  // namespace convkit::CONVKIT_ISA
