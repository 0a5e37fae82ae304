// The one generator of Winograd transforms: F(m, r) in one dimension from interpolation points, after Cook and Toom.
//
//   y = A^T [ (G g) . (B^T d) ],  m outputs, r taps, n = m + r - 1 multiplications,
//
// with points 0 (optional), pairs +-p and infinity, in that order. A^T is the Vandermonde matrix of the points, row j of
// B^T the coefficients of prod_{l != j} (x - p_l), G the Vandermonde matrix divided by prod_{l != j} (p_j - p_l). All of B^T
// is left without divisions: rescaling rows between G and B^T changes neither the error nor the operation count.
//
// Since points come in pairs, prod (x - p_l) is an even or odd polynomial with one factor taken out, which is what the
// transforms (winograd_transforms.hpp) share their sums by: `rest` and `all` are those polynomials in x^2.
//
// Lavin and Gray, arXiv 1509.09308; choice of points after Barabasz et al., arXiv 1803.10986.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

constexpr double sqrt_two = 1.41421356237309504880;

struct Points1 {  // 0, +-1
  static constexpr bool zero = true;
  static constexpr int pairs = 1;
  static constexpr double pair(int) { return 1.0; }
};
struct PointsSqrt {  // 0, +-sqrt(1/2), +-sqrt(2): reciprocal and as close to the unit circle as two pairs can be
  static constexpr bool zero = true;
  static constexpr int pairs = 2;
  static constexpr double pair(int i) { return i == 0 ? sqrt_two / 2 : sqrt_two; }
};
struct PointsTwoPairs {  // +-2/5, +-4/3
  static constexpr bool zero = false;
  static constexpr int pairs = 2;
  static constexpr double pair(int i) { return i == 0 ? 2.0 / 5 : 4.0 / 3; }
};
struct PointsNoZero {  // +-0.3, +-0.9, +-1.8
  static constexpr bool zero = false;
  static constexpr int pairs = 3;
  static constexpr double pair(int i) { return i == 0 ? 0.3 : i == 1 ? 0.9 : 1.8; }
};
struct PointsHalves {  // 0, +-1, +-2, +-1/2
  static constexpr bool zero = true;
  static constexpr int pairs = 3;
  static constexpr double pair(int i) { return i == 0 ? 1.0 : i == 1 ? 2.0 : 0.5; }
};

struct PointsFifths {  // 0, +-2/5, +-4/5, +-5/4, +-5/2: reciprocal pairs, for the many points of long rows of taps
  static constexpr bool zero = true;
  static constexpr int pairs = 4;
  static constexpr double pair(int i) { return i == 0 ? 0.4 : i == 1 ? 0.8 : i == 2 ? 1.25 : 2.5; }
};

template <int M, int R, class Points>
struct Winograd1d {
  static constexpr int m = M, r = R, n = M + R - 1;
  static constexpr int zero = Points::zero ? 1 : 0;
  static constexpr int pairs = Points::pairs;
  static_assert(zero + 2 * pairs + 1 == n, "one point a multiplication, infinity included");

  struct Matrices {
    double at[M][n] = {}, g[n][R] = {}, bt[n][n] = {};
    double rest[pairs][pairs] = {};  // [i]: prod_{l != i} (t - p_l^2), lowest power first; the highest is 1
    double all[pairs + 1] = {};      // prod_l (t - p_l^2)
  };

  static constexpr double point(int j) {
    if (j < zero) return 0;
    const double p = Points::pair((j - zero) / 2);
    return (j - zero) % 2 ? -p : p;
  }
  static constexpr double power(double x, int e) {
    double value = 1;
    for (; e > 0; --e) value *= x;
    return value;
  }

  static constexpr Matrices make() {
    Matrices w{};
    for (int j = 0; j < n - 1; ++j) {
      double divisor = 1;
      double row[n] = {1};
      int degree = 0;
      for (int l = 0; l < n - 1; ++l) {
        if (l == j) continue;
        divisor *= point(j) - point(l);
        for (int k = ++degree; k > 0; --k) row[k] = row[k - 1] - point(l) * row[k];
        row[0] *= -point(l);
      }
      for (int k = 0; k < n; ++k) w.bt[j][k] = row[k];
      for (int k = 0; k < R; ++k) w.g[j][k] = power(point(j), k) / divisor;
      for (int k = 0; k < M; ++k) w.at[k][j] = power(point(j), k);
    }
    w.g[n - 1][R - 1] = 1;
    w.at[M - 1][n - 1] = 1;
    for (int i = 0; i <= pairs; ++i) {
      double product[pairs + 1] = {1};
      int degree = 0;
      for (int l = 0; l < pairs; ++l) {
        if (l == i) continue;
        const double square = Points::pair(l) * Points::pair(l);
        for (int k = ++degree; k > 0; --k) product[k] = product[k - 1] - square * product[k];
        product[0] *= -square;
      }
      for (int k = 0; k <= degree; ++k) (i < pairs ? w.rest[i < pairs ? i : 0][k] : w.all[k]) = product[k];
    }
    for (int k = 0; k <= pairs; ++k) w.bt[n - 1][2 * k + zero] = w.all[k];
    return w;
  }
  static constexpr Matrices matrices = make();

  // Largest deviation of sum_j at[k][j] g[j][t] bt[j][i] from [i == k + t]: zero in exact arithmetic for a correlation.
  static constexpr double deviation() {
    double worst = 0;
    for (int k = 0; k < M; ++k) {
      for (int t = 0; t < R; ++t) {
        for (int i = 0; i < n; ++i) {
          double sum = i == k + t ? -1 : 0;
          for (int j = 0; j < n; ++j) sum += matrices.at[k][j] * matrices.g[j][t] * matrices.bt[j][i];
          worst = sum > worst ? sum : -sum > worst ? -sum : worst;
        }
      }
    }
    return worst;
  }
};

// No transform along this axis: one output a tile, one tap.
struct Identity1d {
  static constexpr int m = 1, r = 1, n = 1;
};

using F2x3 = Winograd1d<2, 3, Points1>;
using F4x3 = Winograd1d<4, 3, PointsSqrt>;
using F5x3 = Winograd1d<5, 3, PointsNoZero>;
using F6x3 = Winograd1d<6, 3, PointsHalves>;
using F4x2 = Winograd1d<4, 2, PointsTwoPairs>;
using F2x5 = Winograd1d<2, 5, PointsSqrt>;
using F3x5 = Winograd1d<3, 5, PointsNoZero>;
using F4x5 = Winograd1d<4, 5, PointsHalves>;
using F4x7 = Winograd1d<4, 7, PointsFifths>;

static_assert(F2x3::deviation() < 1e-13 && F4x3::deviation() < 1e-13 && F5x3::deviation() < 1e-13 &&
                  F6x3::deviation() < 1e-13 && F4x2::deviation() < 1e-13 && F2x5::deviation() < 1e-13 &&
                  F3x5::deviation() < 1e-13 && F4x5::deviation() < 1e-13 && F4x7::deviation() < 1e-12,
              "the matrices are not those of a correlation");

}  // namespace convkit::CONVKIT_ISA
