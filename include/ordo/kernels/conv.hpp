#pragma once
/// \file
/// Convolution over time, its adjoint, and the gradient of its weight: three parts of one trilinear form
///
///     sum_{b,t,o} y[b, t, o] sum_{w,i} weight[o, i, w] x[b, t stride + w dilation - left, g(o) in/G + i]
///
/// each the derivative of the form by the tensor that it computes. A tap is a matrix product of rows that lie `stride` apart: no
/// copy of the input is made. Without groups and dilation all taps are one product, of rows that overlap in memory. One channel in
/// and out a group (depthwise) goes over channels as vectors.

#include <algorithm>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/gemm.hpp"

namespace ordo::kernels {

/// The extents of x [batch, in_length, in_dim], y [batch, out_length, out_dim] and weight [out_dim, in_dim / groups, width], and how
/// they meet. Places before and behind x count as zeros.
struct Convolution {
  Index batch = 0, in_length = 0, out_length = 0, in_dim = 0, out_dim = 0, width = 1;
  Index stride = 1, dilation = 1, left = 0, groups = 1;

  constexpr Index group_in() const noexcept { return in_dim / groups; }
  constexpr Index group_out() const noexcept { return out_dim / groups; }
  constexpr bool depthwise() const noexcept { return groups == in_dim && groups == out_dim; }
  /// Where tap w of output t reads, maybe outside of x.
  constexpr Index place(Index t, Index w) const noexcept { return t * stride + w * dilation - left; }
  /// The outputs whose tap w reads inside of x: [first, last), maybe none.
  constexpr Index first(Index w) const noexcept {
    const Index before = left - w * dilation;
    return before <= 0 ? 0 : std::min(out_length, (before + stride - 1) / stride);
  }
  constexpr Index last(Index w) const noexcept {
    const Index room = in_length - 1 + left - w * dilation;
    return room < 0 ? 0 : std::min(out_length, room / stride + 1);
  }
};

namespace detail {

/// from [rows, n, m] to [rows, m, n].
template <class T>
void swap_inner(const T* from, Index rows, Index n, Index m, T* to) noexcept {
  for (Index r = 0; r < rows; ++r, from += n * m, to += n * m) {
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < n; ++i) to[j * n + i] = from[i * m + j];
    }
  }
}

/// The parts as matrix products. Weights lie as [out_dim, width, in_dim / groups].
template <class T, class Arch>
struct ConvProducts {
  const Convolution& c;
  /// All taps in one product: x's rows from the first tap on to the last lie one behind the other.
  bool merged() const noexcept { return c.groups == 1 && c.dilation == 1 && c.width > 1; }
  Index weight_stride() const noexcept { return c.width * c.group_in(); }
  /// Outputs all of whose taps read inside of x.
  Index inner_first() const noexcept { return c.first(0); }
  Index inner_last() const noexcept { return std::max(inner_first(), c.last(c.width - 1)); }

  /// Calls f(group, tap, taps, first, last) for products that make up the outputs [begin, end).
  template <class F>
  void for_each(Index begin, Index end, F&& f) const {
    if (merged()) {
      const Index first = std::clamp(inner_first(), begin, end), last = std::clamp(inner_last(), first, end);
      if (first < last) f(Index{0}, Index{0}, c.width, first, last);
      taps(begin, first, f);
      taps(last, end, f);
    } else {
      taps(begin, end, f);
    }
  }
  template <class F>
  void taps(Index begin, Index end, F&& f) const {
    for (Index g = 0; g < c.groups; ++g) {
      for (Index w = 0; w < c.width; ++w) {
        const Index first = std::max(begin, c.first(w)), last = std::min(end, c.last(w));
        if (first < last) f(g, w, Index{1}, first, last);
      }
    }
  }

  const T* x_rows(const T* x, Index b, Index t, Index w, Index g) const noexcept {
    return x + (b * c.in_length + c.place(t, w)) * c.in_dim + g * c.group_in();
  }

  /// y += the form's derivative by y.
  void outputs(const T* x, const T* weight, T* y) const {
    parallel_for(c.batch, 1, [&](Index begin, Index end) {
      for (Index b = begin; b < end; ++b) {
        for_each(0, c.out_length, [&](Index g, Index w, Index taps, Index first, Index last) {
          GemmArgs<T, Arch> args;
          args.m = last - first;
          args.n = c.group_out();
          args.k = taps * c.group_in();
          args.a = {x_rows(x, b, first, w, g), c.stride * c.in_dim, 1};
          args.b = {weight + g * c.group_out() * weight_stride() + w * c.group_in(), 1, weight_stride()};
          args.c = y + (b * c.out_length + first) * c.out_dim + g * c.group_out();
          args.c_stride = c.out_dim;
          args.accumulate = true;
          gemm(args);
        });
      }
    });
  }
  /// x += the derivative by x; its rows overlap, so tap by tap.
  void inputs(const T* y, const T* weight, T* x) const {
    parallel_for(c.batch, 1, [&](Index begin, Index end) {
      for (Index b = begin; b < end; ++b) {
        taps(0, c.out_length, [&](Index g, Index w, Index, Index first, Index last) {
          GemmArgs<T, Arch> args;
          args.m = last - first;
          args.n = c.group_in();
          args.k = c.group_out();
          args.a = {y + (b * c.out_length + first) * c.out_dim + g * c.group_out(), c.out_dim, 1};
          args.b = {weight + g * c.group_out() * weight_stride() + w * c.group_in(), weight_stride(), 1};
          args.c = const_cast<T*>(x_rows(x, b, first, w, g));
          args.c_stride = c.stride * c.in_dim;
          args.accumulate = true;
          gemm(args);
        });
      }
    });
  }
  /// weight += the derivative by the weight; the batch is added up in order.
  void weights(const T* x, const T* y, T* weight) const {
    for (Index b = 0; b < c.batch; ++b) {
      for_each(0, c.out_length, [&](Index g, Index w, Index taps, Index first, Index last) {
        GemmArgs<T, Arch> args;
        args.m = c.group_out();
        args.n = taps * c.group_in();
        args.k = last - first;
        args.a = {y + (b * c.out_length + first) * c.out_dim + g * c.group_out(), 1, c.out_dim};
        args.b = {x_rows(x, b, first, w, g), c.stride * c.in_dim, 1};
        args.c = weight + g * c.group_out() * weight_stride() + w * c.group_in();
        args.c_stride = weight_stride();
        args.accumulate = true;
        gemm(args);
      });
    }
  }
};

/// The parts channel by channel. Weights lie as [width, channels].
template <class T, class Arch>
struct ConvChannels {
  using V = simd::Vec<T, Arch>;
  const Convolution& c;
  static constexpr Index rows = 64, columns = 16 * simd::lanes<T, Arch>;

  /// to += from * weight, over the channels.
  static void add_row(const T* from, const T* weight, T* to, Index n) {
    simd::transform<Arch>(from, weight, to, to, n, [](const V& a, const V& w, const V& sum) { return simd::fma(a, w, sum); });
  }
  template <class F>
  static void for_rows(Index batch, Index length, F&& f) {
    const Index pieces = (length + rows - 1) / rows;
    parallel_for(batch * pieces, 1, [&](Index begin, Index end) {
      for (Index p = begin; p < end; ++p) f(p / pieces, p % pieces * rows, std::min(length, (p % pieces + 1) * rows));
    });
  }

  void outputs(const T* x, const T* weight, T* y) const {
    for_rows(c.batch, c.out_length, [&](Index b, Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        for (Index w = 0; w < c.width; ++w) {
          const Index s = c.place(t, w);
          if (s < 0 || s >= c.in_length) continue;
          add_row(x + (b * c.in_length + s) * c.in_dim, weight + w * c.in_dim, y + (b * c.out_length + t) * c.in_dim, c.in_dim);
        }
      }
    });
  }
  void inputs(const T* y, const T* weight, T* x) const {
    for_rows(c.batch, c.in_length, [&](Index b, Index begin, Index end) {
      for (Index s = begin; s < end; ++s) {
        for (Index w = 0; w < c.width; ++w) {
          const Index at = s + c.left - w * c.dilation;
          if (at < 0 || at % c.stride != 0 || at / c.stride >= c.out_length) continue;
          add_row(y + (b * c.out_length + at / c.stride) * c.in_dim, weight + w * c.in_dim, x + (b * c.in_length + s) * c.in_dim,
                  c.in_dim);
        }
      }
    });
  }
  void weights(const T* x, const T* y, T* weight) const {
    parallel_for((c.in_dim + columns - 1) / columns, 1, [&](Index first, Index last) {
      for (Index j = first * columns; j < std::min(c.in_dim, last * columns); j += columns) {
        const Index n = std::min(columns, c.in_dim - j);
        for (Index b = 0; b < c.batch; ++b) {
          for (Index w = 0; w < c.width; ++w) {
            for (Index t = c.first(w); t < c.last(w); ++t) {
              add_row(x + (b * c.in_length + c.place(t, w)) * c.in_dim + j, y + (b * c.out_length + t) * c.in_dim + j,
                      weight + w * c.in_dim + j, n);
            }
          }
        }
      }
    });
  }
};

/// Calls f(parts, weight), the weight in the layout that the parts want; `write` takes it back from there.
template <class T, class Arch, class F>
void with_convolution(const Convolution& c, const T* weight, T* gradient, F&& f) {
  const Index size = c.out_dim * c.group_in() * c.width;
  Scratch<T> turned(size);
  const bool depthwise = c.depthwise();
  const Index rows = depthwise ? 1 : c.out_dim, n = depthwise ? c.out_dim : c.group_in();
  if (weight != nullptr) {
    swap_inner(weight, rows, n, c.width, turned.data());
  } else {
    std::fill_n(turned.data(), size, T(0));
  }
  if (depthwise) {
    f(ConvChannels<T, Arch>{c}, turned.data());
  } else {
    f(ConvProducts<T, Arch>{c}, turned.data());
  }
  if (gradient != nullptr) swap_inner(turned.data(), rows, c.width, n, gradient);
}

/// `rows` rows of bias [n], or of zeros.
template <class T>
void fill_rows(const T* bias, Index rows, Index n, T* to) {
  if (bias == nullptr) {
    std::fill_n(to, rows * n, T(0));
  } else {
    for (Index r = 0; r < rows; ++r) std::copy_n(bias, n, to + r * n);
  }
}

}  // namespace detail

/// y = conv(x, weight) + bias; bias [out_dim] or null.
template <class T, class Arch = simd::DefaultArch>
void convolve(const Convolution& c, const T* x, const T* weight, const T* bias, T* y) {
  detail::fill_rows(bias, c.batch * c.out_length, c.out_dim, y);
  detail::with_convolution<T, Arch>(c, weight, nullptr, [&](const auto& parts, T* w) { parts.outputs(x, w, y); });
}
/// x = the adjoint of conv in y (a transposed convolution) + bias; bias [in_dim] or null.
template <class T, class Arch = simd::DefaultArch>
void convolve_transposed(const Convolution& c, const T* y, const T* weight, const T* bias, T* x) {
  detail::fill_rows(bias, c.batch * c.in_length, c.in_dim, x);
  detail::with_convolution<T, Arch>(c, weight, nullptr, [&](const auto& parts, T* w) { parts.inputs(y, w, x); });
}
/// weight = the gradient of <y, conv(x, weight)>.
template <class T, class Arch = simd::DefaultArch>
void convolution_weight(const Convolution& c, const T* x, const T* y, T* weight) {
  detail::with_convolution<T, Arch>(c, static_cast<const T*>(nullptr), weight,
                                    [&](const auto& parts, T* w) { parts.weights(x, y, w); });
}

}  // namespace ordo::kernels
