#pragma once
/// \file
/// The depthwise causal convolution in front of Mamba and of many linear-attention layers, with its state.

#include <algorithm>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/sequences.hpp"
#include "ordo/simd/math.hpp"

namespace ordo::kernels {

/// With z = the state's W-1 columns followed by x, for each channel e:
///
///     y_t[e] = f(bias[e] + sum_w weight[e, w] z_{t+w}[e]);   the state becomes the last W-1 columns of z
template <class T>
struct ShortConvolution {
  Sequences sequences;
  Index channels = 0, width = 1;
  Rows<const T> x;
  const T* weight = nullptr;    ///< [channels, width]
  const T* bias = nullptr;      ///< [channels] or null
  const T* state_in = nullptr;  ///< [sequences, channels, width - 1]; null: zeros
  bool silu = false;
};

/// Where gradients go; all are written, null ones are left out.
template <class T>
struct ShortConvolutionGradients {
  Rows<T> x;
  T* weight = nullptr;
  T* bias = nullptr;
  T* state_in = nullptr;
};

namespace detail {

/// One vector of channels [e, e + n): its taps, bias and window.
template <class T, class Arch>
class ConvColumn {
 public:
  using V = simd::Vec<T, Arch>;
  static constexpr Index lane_count = simd::lanes<T, Arch>;

  ConvColumn(const ShortConvolution<T>& conv, Index e) noexcept
      : conv_(conv), e_(e), n_(std::min(lane_count, conv.channels - e)), bias_(conv.bias ? load(conv.bias + e) : V(T(0))) {}

  V load(const T* p) const noexcept { return n_ == lane_count ? simd::load<Arch>(p) : simd::load_partial<Arch>(p, n_); }
  void store(T* p, V v) const noexcept {
    if (n_ == lane_count) {
      simd::store(p, v);
    } else {
      simd::store_partial(p, v, n_);
    }
  }
  /// Element k of each of these channels in an array [channels, width], as a vector, and back.
  V gather(const T* array, Index width, Index k) const noexcept {
    alignas(64) T lane[static_cast<std::size_t>(lane_count)] = {};
    for (Index i = 0; i < n_; ++i) lane[i] = array[(e_ + i) * width + k];
    return simd::load<Arch>(lane);
  }
  void scatter(T* array, Index width, Index k, V v) const noexcept {
    alignas(64) T lane[static_cast<std::size_t>(lane_count)];
    simd::store(lane, v);
    for (Index i = 0; i < n_; ++i) array[(e_ + i) * width + k] = lane[i];
  }
  V bias() const noexcept { return bias_; }

  /// z at place j of sequence s: j < W-1 is the state, after that come the tokens.
  V input(Index s, Index j) const noexcept {
    const Index past = conv_.width - 1;
    if (j >= past) return load(conv_.x[conv_.sequences.begin(s) + j - past] + e_);
    if (conv_.state_in == nullptr) return V(T(0));
    return gather(conv_.state_in + s * conv_.channels * past, past, j);
  }

 private:
  const ShortConvolution<T>& conv_;
  Index e_, n_;
  V bias_;
};

/// Calls f(std::integral_constant<Index, W>) for the widths that occur, with 0 for all others: known widths keep the window in registers.
template <class F>
void with_conv_width(Index width, F&& f) {
  switch (width) {
    case 2: return f(std::integral_constant<Index, 2>{});
    case 3: return f(std::integral_constant<Index, 3>{});
    case 4: return f(std::integral_constant<Index, 4>{});
    default: return f(std::integral_constant<Index, 0>{});
  }
}

/// A window of vectors: in registers for a known width, else on the pool.
template <class V, class T, Index W>
struct ConvWindow {
  explicit ConvWindow(Index) noexcept {}
  V& operator[](Index i) noexcept { return v[i]; }
  V v[W];
};
template <class V, class T>
struct ConvWindow<V, T, 0> {
  explicit ConvWindow(Index width) : memory(width * static_cast<Index>(V::size)) {
    for (Index i = 0; i < width; ++i) (*this)[i] = V(T(0));
  }
  struct Slot {
    T* p;
    operator V() const noexcept { return V::load_aligned(p); }  // NOLINT(google-explicit-constructor): stands for a V
    Slot& operator=(V v) noexcept {
      v.store_aligned(p);
      return *this;
    }
    Slot& operator=(const Slot& o) noexcept { return *this = static_cast<V>(o); }
  };
  Slot operator[](Index i) noexcept { return {memory.data() + i * static_cast<Index>(V::size)}; }
  Scratch<T> memory;
};

/// Calls token(t, sum) for each token of sequence s, where sum = bias + sum_w weight_w z_{t+w}.
template <Index W, class T, class Arch, class Token>
[[gnu::always_inline]] inline void convolve(const ShortConvolution<T>& conv, const ConvColumn<T, Arch>& column, Index s,
                                            Token&& token) {
  using V = simd::Vec<T, Arch>;
  const Index width = W != 0 ? W : conv.width, length = conv.sequences.end(s) - conv.sequences.begin(s);
  ConvWindow<V, T, W> z(width), taps(width);
  for (Index k = 0; k < width; ++k) taps[k] = column.gather(conv.weight, width, k);
  for (Index k = 0; k + 1 < width; ++k) z[k + 1] = column.input(s, k);
  for (Index t = 0; t < length; ++t) {
    for (Index k = 0; k + 1 < width; ++k) z[k] = z[k + 1];
    z[width - 1] = column.input(s, t + width - 1);
    V sum = column.bias();
    for (Index k = 0; k < width; ++k) sum = simd::fma(static_cast<V>(taps[k]), static_cast<V>(z[k]), sum);
    token(t, sum);
  }
}

}  // namespace detail

/// Writes y and the state that the next piece starts from (state_out null: not wanted; it may be state_in).
template <class T, class Arch = simd::DefaultArch>
void short_conv_forward(const ShortConvolution<T>& conv, Rows<T> y, T* state_out) {
  constexpr Index lane_count = simd::lanes<T, Arch>;
  const Index columns = (conv.channels + lane_count - 1) / lane_count;
  const Index work = std::max<Index>(1, conv.sequences.rows() * conv.width * lane_count);
  parallel_for(columns, std::max<Index>(1, 65536 / work), [&](Index first, Index last) {
    for (Index c = first; c < last; ++c) {
      const Index e = c * lane_count;
      const detail::ConvColumn<T, Arch> column(conv, e);
      for (Index s = 0; s < conv.sequences.count; ++s) {
        const Index row = conv.sequences.begin(s), length = conv.sequences.end(s) - row, past = conv.width - 1;
        detail::with_conv_width(conv.width, [&](auto width) {
          detail::convolve<width>(conv, column, s, [&](Index t, auto sum) {
            column.store(y[row + t] + e, conv.silu ? simd::silu(sum) : sum);
          });
        });
        if (state_out == nullptr) continue;
        T* const to = state_out + s * conv.channels * past;
        // Ascending places never read what was overwritten, even if both states are one.
        for (Index k = 0; k < past; ++k) column.scatter(to, past, k, column.input(s, length + k));
      }
    }
  });
}

/// Gradients from dy and, if not null, that of the outgoing state. Recomputes what silu needs.
template <class T, class Arch = simd::DefaultArch>
void short_conv_backward(const ShortConvolution<T>& conv, Rows<const T> dy, const T* dstate_out,
                         const ShortConvolutionGradients<T>& out) {
  using V = simd::Vec<T, Arch>;
  constexpr Index lane_count = simd::lanes<T, Arch>;
  const Index columns = (conv.channels + lane_count - 1) / lane_count, width = conv.width, past = width - 1;
  const Index work = std::max<Index>(1, conv.sequences.rows() * width * lane_count);
  // A column of channels belongs to one thread over all of time: no sums are shared.
  parallel_for(columns, std::max<Index>(1, 32768 / work), [&](Index first, Index last) {
    Index longest = 0;
    for (Index s = 0; s < conv.sequences.count; ++s) {
      longest = std::max(longest, conv.sequences.end(s) - conv.sequences.begin(s));
    }
    Scratch<T> memory((longest + 2 * width) * lane_count);
    T* const g = memory.data();  // d(pre-activation) of each token
    T* const dtaps = g + longest * lane_count;
    T* const taps = dtaps + width * lane_count;
    for (Index c = first; c < last; ++c) {
      const Index e = c * lane_count;
      const detail::ConvColumn<T, Arch> column(conv, e);
      V dbias(T(0));
      for (Index k = 0; k < width; ++k) {
        V(T(0)).store_aligned(dtaps + k * lane_count);
        column.gather(conv.weight, width, k).store_aligned(taps + k * lane_count);
      }
      for (Index s = 0; s < conv.sequences.count; ++s) {
        const Index row = conv.sequences.begin(s), length = conv.sequences.end(s) - row;
        if (conv.silu) {
          detail::with_conv_width(width, [&](auto fixed) {
            detail::convolve<fixed>(conv, column, s, [&](Index t, V pre) {
              const V sig = simd::sigmoid(pre);
              const V slope = sig * simd::fma(pre, V(T(1)) - sig, V(T(1)));
              (column.load(dy[row + t] + e) * slope).store_aligned(g + t * lane_count);
            });
          });
        } else {
          for (Index t = 0; t < length; ++t) column.load(dy[row + t] + e).store_aligned(g + t * lane_count);
        }
        if (out.weight != nullptr) {
          for (Index k = 0; k < width; ++k) {
            V sum = V::load_aligned(dtaps + k * lane_count);
            for (Index t = 0; t < length; ++t) sum = simd::fma(V::load_aligned(g + t * lane_count), column.input(s, t + k), sum);
            sum.store_aligned(dtaps + k * lane_count);
          }
        }
        if (out.bias != nullptr) {
          for (Index t = 0; t < length; ++t) dbias += V::load_aligned(g + t * lane_count);
        }
        if (!out.x && out.state_in == nullptr) continue;
        for (Index j = 0; j < length + past; ++j) {  // dz_j = sum over t + k = j
          V dz(T(0));
          for (Index k = std::max<Index>(0, j - length + 1); k < width && k <= j; ++k) {
            dz = simd::fma(V::load_aligned(taps + k * lane_count), V::load_aligned(g + (j - k) * lane_count), dz);
          }
          if (dstate_out != nullptr && j >= length) {
            dz += column.gather(dstate_out + s * conv.channels * past, past, j - length);
          }
          if (j >= past) {
            if (out.x) column.store(out.x[row + j - past] + e, dz);
          } else if (out.state_in != nullptr) {
            column.scatter(out.state_in + s * conv.channels * past, past, j, dz);
          }
        }
      }
      if (out.weight != nullptr) {
        for (Index k = 0; k < width; ++k) column.scatter(out.weight, width, k, V::load_aligned(dtaps + k * lane_count));
      }
      if (out.bias != nullptr) column.store(out.bias + e, dbias);
    }
  });
}

}  // namespace ordo::kernels
