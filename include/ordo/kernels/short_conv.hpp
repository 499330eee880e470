#pragma once
/// \file
/// The depthwise causal convolution in front of Mamba and of many linear-attention layers, with its state.
///
/// Lanes run over channels. A tile of a few rows goes through the channels together: a vector of the input is loaded
/// once for all the outputs that it reaches, a tap once for all rows. One row (a step) reads taps and state as they lie
/// instead of turning them round first.

#include <algorithm>
#include <iterator>
#include <optional>
#include <type_traits>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/row.hpp"
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
  bool silu = false;            ///< f, else the identity
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

/// Rows of a tile, and channels that go through all rows of a piece before the next ones: both tiles stay in the L1
/// cache.
inline constexpr Index conv_rows = 4;
inline constexpr Index conv_channels = 512;

/// [rows, columns] to [columns, rows].
template <class T>
void transpose(const T* from, Index rows, Index columns, T* to) noexcept {
  for (Index j = 0; j < columns; ++j) {
    for (Index i = 0; i < rows; ++i) to[j * rows + i] = from[i * columns + j];
  }
}

/// A convolution with taps, states and a row of zeros as rows of channels.
template <class T>
class ConvRows {
 public:
  explicit ConvRows(const ShortConvolution<T>& conv)
      : conv_(conv), past_(conv.width - 1), memory_((conv.width + 1 + state_rows(conv)) * conv.channels) {
    const Index channels = conv.channels;
    transpose(conv.weight, channels, conv.width, memory_.data());
    std::fill_n(memory_.data() + conv.width * channels, channels, T(0));
    if (state_rows(conv) == 0) return;
    for (Index s = 0; s < conv.sequences.count; ++s) {
      transpose(conv.state_in + s * channels * past_, channels, past_, states() + s * past_ * channels);
    }
  }
  const T* taps() const noexcept { return memory_.data(); }  ///< [width, channels]
  const T* zeros() const noexcept { return memory_.data() + conv_.width * conv_.channels; }
  /// z_j of sequence s: the columns of the state, then the tokens; zeros behind the last one.
  const T* input(Index s, Index j) const noexcept {
    const Index row = conv_.sequences.begin(s) + j - past_;
    if (j >= past_) return row < conv_.sequences.end(s) ? conv_.x[row] : zeros();
    return conv_.state_in ? states() + (s * past_ + j) * conv_.channels : zeros();
  }

 private:
  static Index state_rows(const ShortConvolution<T>& conv) noexcept {
    return conv.state_in ? conv.sequences.count * (conv.width - 1) : 0;
  }
  T* states() const noexcept { return memory_.data() + (conv_.width + 1) * conv_.channels; }

  const ShortConvolution<T>& conv_;
  Index past_;
  Scratch<T> memory_;  ///< taps, zeros, states
};

/// Calls f(std::integral_constant<Index, W>) with W = width where that occurs in models, else 0: known widths are
/// unrolled.
template <class F>
void with_conv_width(Index width, F&& f) {
  switch (width) {
    case 4: return f(std::integral_constant<Index, 4>{});
    default: return f(std::integral_constant<Index, 0>{});
  }
}

/// sum[r] = bias + sum_w taps[w] z[r + w] for the channels [first, last): calls f(channel, count, sum[conv_rows]).
/// z holds conv_rows + width - 1 rows.
template <Index W, class Arch, class T, class F>
void convolve_tile(const T* const* z, const T* taps, Index stride, Index width, const T* bias, Index first, Index last,
                   F&& f) {
  using V = simd::Vec<T, Arch>;
  simd::for_lanes<T, Arch>(last - first, [&](Index i, auto count) {
    const Index e = first + i;
    const V start = bias ? load_some<Arch>(bias + e, count) : V(T(0));
    V sum[conv_rows];
    unrolled<conv_rows>([&](auto r) { sum[r] = start; });
    if constexpr (W != 0) {
      V tap[W];
      unrolled<W>([&](auto w) { tap[w] = load_some<Arch>(taps + w * stride + e, count); });
      unrolled<conv_rows + W - 1>([&](auto j) {
        const V v = load_some<Arch>(z[j] + e, count);
        unrolled<conv_rows>([&](auto r) {
          if constexpr (r <= j && j - r < W) sum[r] = simd::fma(tap[j - r], v, sum[r]);
        });
      });
    } else {
      for (Index w = 0; w < width; ++w) {
        const V tap = load_some<Arch>(taps + w * stride + e, count);
        unrolled<conv_rows>([&](auto r) { sum[r] = simd::fma(tap, load_some<Arch>(z[r + w] + e, count), sum[r]); });
      }
    }
    f(e, count, sum);
  });
}

/// Row pointers of a tile; wide convolutions take them from the pool.
template <class T>
class RowPointers {
 public:
  explicit RowPointers(Index count) {
    if (count > static_cast<Index>(std::size(few_))) many_.emplace(count);
  }
  const T** data() noexcept { return many_ ? many_->data() : few_; }

 private:
  const T* few_[16];
  std::optional<Scratch<const T*>> many_;
};

/// One token of each sequence, as all lies: y and the new state.
template <class T, class Arch>
void conv_step(const ShortConvolution<T>& conv, Rows<T> y, T* state_out, Index s, Index first, Index last) {
  constexpr Index block = 64;
  const Index width = conv.width, past = width - 1;
  const T* const x = conv.x[conv.sequences.begin(s)];
  T* const out = y[conv.sequences.begin(s)];
  alignas(64) T sum[block];
  for (Index e0 = first; e0 < last; e0 += block) {
    const Index count = std::min(block, last - e0);
    for (Index i = 0; i < count; ++i) {
      const Index e = e0 + i;
      const T* const tap = conv.weight + e * width;
      const T* const old = conv.state_in ? conv.state_in + (s * conv.channels + e) * past : nullptr;
      T* const next = state_out ? state_out + (s * conv.channels + e) * past : nullptr;
      T v = tap[past] * x[e] + (conv.bias ? conv.bias[e] : T(0));
      for (Index w = 0; w < past; ++w) {
        const T z = old ? old[w] : T(0);
        v += tap[w] * z;
        if (next && w > 0) next[w - 1] = z;
      }
      if (next && past > 0) next[past - 1] = x[e];
      sum[i] = v;
    }
    if (conv.silu) {
      simd::transform<Arch>(sum, out + e0, count, simd::silu);
    } else {
      std::copy_n(sum, count, out + e0);
    }
  }
}

/// The last W-1 columns of z; state_out may be state_in, for the columns that are read lie at or behind those written.
template <class T>
void conv_state(const ShortConvolution<T>& conv, Index s, T* state_out) noexcept {
  const Index past = conv.width - 1, begin = conv.sequences.begin(s), length = conv.sequences.end(s) - begin;
  const T* const old = conv.state_in ? conv.state_in + s * conv.channels * past : nullptr;
  T* const next = state_out + s * conv.channels * past;
  for (Index k = 0; k < past; ++k) {
    const Index j = length + k;
    for (Index e = 0; e < conv.channels; ++e) {
      next[e * past + k] = j >= past ? conv.x[begin + j - past][e] : (old ? old[e * past + j] : T(0));
    }
  }
}

/// How many rows make about 20 us of work.
inline Index conv_grain(Index channels) noexcept {
  return std::max<Index>(conv_rows, 65536 / std::max<Index>(channels, 1) / conv_rows * conv_rows);
}

}  // namespace detail

/// Writes y (not over x) and the state that the next piece starts from (state_out null: not wanted; it may be
/// state_in).
template <class T, class Arch = simd::DefaultArch>
void short_conv_forward(const ShortConvolution<T>& conv, Rows<T> y, T* state_out) {
  const Sequences& sequences = conv.sequences;
  const Index channels = conv.channels, width = conv.width;
  if (sequences.offsets == nullptr && sequences.length == 1) {
    const Index pieces = (channels + detail::conv_channels - 1) / detail::conv_channels;
    parallel_for(sequences.count * pieces, 64, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Index first = i % pieces * detail::conv_channels,
                    last = std::min(first + detail::conv_channels, channels);
        detail::conv_step<T, Arch>(conv, y, state_out, i / pieces, first, last);
      }
    });
    return;
  }
  const detail::ConvRows<T> rows(conv);
  parallel_for(sequences.rows(), detail::conv_grain(channels), [&](Index begin, Index end) {
    detail::RowPointers<T> pointers(detail::conv_rows + width - 1);
    const T** const z = pointers.data();
    sequences.for_each_in(begin, end, [&](Index s, Index first, Index last) {
      const Index start = sequences.begin(s);
      for (Index e = 0; e < channels; e += detail::conv_channels) {
        for (Index row = first; row < last; row += detail::conv_rows) {
          const Index count = std::min(detail::conv_rows, last - row);
          for (Index j = 0; j < detail::conv_rows + width - 1; ++j) z[j] = rows.input(s, row - start + j);
          detail::with_conv_width(width, [&](auto fixed) {
            detail::convolve_tile<fixed, Arch>(
                z, rows.taps(), channels, width, conv.bias, e, std::min(e + detail::conv_channels, channels),
                [y, row, count, silu = conv.silu](Index at, auto lanes, auto& sum) {
                  // All at once, so that the long chains of silu run beside each other.
                  if (silu) detail::unrolled<detail::conv_rows>([&](auto r) { sum[r] = simd::silu(sum[r]); });
                  detail::unrolled<detail::conv_rows>([&](auto r) {
                    if (r < count) detail::store_some<Arch, T>(y[row + r] + at, sum[r], lanes);
                  });
                });
          });
        }
      }
    });
  });
  if (state_out == nullptr) return;
  for (Index s = 0; s < sequences.count; ++s) detail::conv_state(conv, s, state_out);
}

namespace detail {

/// The backward pass of the rows [first, last) of sequence s (counted from its start), channels [e0, e1).
template <class T, class Arch>
class ConvBackward {
  using V = simd::Vec<T, Arch>;
  static constexpr Index lane_count = simd::lanes<T, Arch>;

 public:
  ConvBackward(const ShortConvolution<T>& conv, const ConvRows<T>& rows, const T* flipped, Rows<const T> dy,
               const T* dstate_out, const ShortConvolutionGradients<T>& out, T* sums)
      : conv_(conv),
        rows_(rows),
        flipped_(flipped),
        dy_(dy),
        dstate_out_(dstate_out),
        out_(out),
        sums_(sums),
        past_(conv.width - 1),
        pointers_(conv_rows + past_),
        gradient_pointers_(conv_rows + past_),
        gradients_((conv_rows + past_) * conv_channels) {
    for (Index j = 0; j < conv_rows + past_; ++j) gradient_pointers_.data()[j] = gradients_.data() + j * conv_channels;
  }

  void operator()(Index s, Index first, Index last, Index e0, Index e1) {
    const Index start = conv_.sequences.begin(s), length = conv_.sequences.end(s) - start;
    // Tiles from the end. The W-1 rows behind a tile, whose gradients its rows need, are those of the tile before, and
    // for the first tile rows of another piece (or none: zeros).
    const Index tiles = (last - first + conv_rows - 1) / conv_rows;
    const Index behind = first + tiles * conv_rows;
    for (Index j = 0; j < past_; j += conv_rows) {
      pre_activation_gradients(s, behind + j, length, e0, e1, gradients_.data() + (conv_rows + j) * conv_channels,
                               std::min(conv_rows, past_ - j));
    }
    for (Index tile = tiles; tile-- > 0;) {
      const Index row = first + tile * conv_rows;
      if (tile + 1 < tiles) {
        for (Index j = past_; j-- > 0;) {
          std::copy_n(gradients_.data() + j * conv_channels, e1 - e0,
                      gradients_.data() + (j + conv_rows) * conv_channels);
        }
      }
      pre_activation_gradients(s, row, length, e0, e1, gradients_.data(), conv_rows);
      add_sums(s, row, std::min(last, row + conv_rows) - row, e0, e1);
      if (out_.x) input_gradients(s, row, std::min(last, row + conv_rows) - row, length, e0, e1);
    }
    if (first == 0 && out_.state_in) state_gradients(s, length, e0, e1);
  }

 private:
  /// to[r] = dL/d(pre-activation) of row + r, 0 from `end` on.
  void pre_activation_gradients(Index s, Index row, Index end, Index e0, Index e1, T* to, Index count) {
    const Index start = conv_.sequences.begin(s), there = std::clamp<Index>(end - row, 0, count);
    for (Index r = there; r < count; ++r) std::fill_n(to + r * conv_channels, e1 - e0, T(0));
    if (there == 0) return;
    if (!conv_.silu) {
      for (Index r = 0; r < there; ++r) std::copy_n(dy_[start + row + r] + e0, e1 - e0, to + r * conv_channels);
      return;
    }
    const T** const z = pointers_.data();
    for (Index j = 0; j < conv_rows + past_; ++j) z[j] = rows_.input(s, row + j);
    with_conv_width(conv_.width, [&](auto fixed) {
      convolve_tile<fixed, Arch>(
          z, rows_.taps(), conv_.channels, conv_.width, conv_.bias, e0, e1,
          [from = Rows<const T>(dy_[start + row], dy_.stride), to, e0, there](Index e, auto lanes, auto& sum) {
            unrolled<conv_rows>([&](auto r) { sum[r] = simd::silu_grad(sum[r]); });
            unrolled<conv_rows>([&](auto r) {
              if (r >= there) return;
              store_some<Arch, T>(to + r * conv_channels + (e - e0), load_some<Arch>(from[r] + e, lanes) * sum[r],
                                  lanes);
            });
          });
    });
  }

  /// Adds this tile's part of the gradients of taps and bias.
  void add_sums(Index s, Index row, Index count, Index e0, Index e1) {
    if (!out_.weight && !out_.bias) return;
    const T** const z = pointers_.data();
    for (Index j = 0; j < conv_rows + past_; ++j) z[j] = rows_.input(s, row + j);
    simd::for_lanes<T, Arch>(e1 - e0, [&](Index i, auto lanes) {
      const auto load = [lanes](const T* p) { return load_some<Arch>(p, lanes); };
      const auto add = [&](T* to, const V& v) { store_some<Arch, T>(to, load(to) + v, lanes); };
      V g[conv_rows], bias(T(0));
      unrolled<conv_rows>([&](auto r) {
        g[r] = r < count ? load(gradients_.data() + r * conv_channels + i) : V(T(0));
        bias = bias + g[r];
      });
      for (Index w = 0; w < conv_.width; ++w) {
        V tap(T(0));
        unrolled<conv_rows>([&](auto r) { tap = simd::fma(g[r], load(z[r + w] + e0 + i), tap); });
        add(sums_ + w * conv_.channels + e0 + i, tap);
      }
      add(sums_ + conv_.width * conv_.channels + e0 + i, bias);
    });
  }

  /// dx_t = sum_w weight_{W-1-w} g_{t+w}: the same convolution with flipped taps; what the final state took comes on
  /// top.
  void input_gradients(Index s, Index row, Index count, Index length, Index e0, Index e1) {
    const Index start = conv_.sequences.begin(s);
    with_conv_width(conv_.width, [&](auto fixed) {
      convolve_tile<fixed, Arch>(
          gradient_pointers_.data(), flipped_ + e0, conv_.channels, conv_.width, static_cast<const T*>(nullptr), 0,
          e1 - e0, [to = Rows<T>(out_.x[start + row] + e0, out_.x.stride), count](Index i, auto lanes, auto& sum) {
            unrolled<conv_rows>([&](auto r) {
              if (r < count) store_some<Arch, T>(to[r] + i, sum[r], lanes);
            });
          });
    });
    if (!dstate_out_) return;
    for (Index t = std::max(row, length - past_); t < row + count; ++t) {
      const T* const of_state = dstate_out_ + s * conv_.channels * past_ + t + past_ - length;
      for (Index e = e0; e < e1; ++e) out_.x[start + t][e] += of_state[e * past_];
    }
  }

  /// What the first rows do to the incoming state; the buffer holds the gradients of the sequence's first rows.
  void state_gradients(Index s, Index length, Index e0, Index e1) {
    for (Index e = e0; e < e1; ++e) {
      T* const to = out_.state_in + (s * conv_.channels + e) * past_;
      for (Index j = 0; j < past_; ++j) {
        T sum = dstate_out_ && j >= length ? dstate_out_[(s * conv_.channels + e) * past_ + j - length] : T(0);
        for (Index t = 0; t <= j; ++t)
          sum += conv_.weight[e * conv_.width + j - t] * gradients_[t * conv_channels + e - e0];
        to[j] = sum;
      }
    }
  }

  const ShortConvolution<T>& conv_;
  const ConvRows<T>& rows_;
  const T* flipped_;
  Rows<const T> dy_;
  const T* dstate_out_;
  const ShortConvolutionGradients<T>& out_;
  T* sums_;  ///< [width + 1][channels]: gradients of taps, and of the bias
  Index past_;
  RowPointers<T> pointers_, gradient_pointers_;
  Scratch<T> gradients_;  ///< [conv_rows + W-1][conv_channels]: of a tile, and of the rows behind it
};

}  // namespace detail

/// Gradients from dy and, if not null, that of the outgoing state. Recomputes what silu needs. Rows are cut in pieces
/// that depend on their number alone; the sums of the pieces are added in order.
template <class T, class Arch = simd::DefaultArch>
void short_conv_backward(const ShortConvolution<T>& conv, Rows<const T> dy, const T* dstate_out,
                         const ShortConvolutionGradients<T>& out) {
  const Sequences& sequences = conv.sequences;
  const Index channels = conv.channels, width = conv.width, past = width - 1, sum_size = (width + 1) * channels;
  const detail::ConvRows<T> rows(conv);
  const SumPieces pieces(sequences.rows(), 64);
  Scratch<T> flipped(width * channels), sums(pieces.count * sum_size);
  for (Index w = 0; w < width; ++w)
    std::copy_n(rows.taps() + w * channels, channels, flipped.data() + (past - w) * channels);
  const Index blocks = (channels + detail::conv_channels - 1) / detail::conv_channels;
  parallel_for(pieces.count * blocks, 1, [&](Index task_begin, Index task_end) {
    for (Index task = task_begin; task < task_end; ++task) {
      const Index piece = task / blocks, e0 = task % blocks * detail::conv_channels;
      const Index e1 = std::min(e0 + detail::conv_channels, channels);
      T* const sum = sums.data() + piece * sum_size;
      for (Index w = 0; w <= width; ++w) std::fill_n(sum + w * channels + e0, e1 - e0, T(0));
      detail::ConvBackward<T, Arch> backward(conv, rows, flipped.data(), dy, dstate_out, out, sum);
      sequences.for_each_in(pieces.begin(piece), pieces.end(piece), [&](Index s, Index first, Index last) {
        backward(s, first - sequences.begin(s), last - sequences.begin(s), e0, e1);
      });
    }
  });
  for (Index piece = 1; piece < pieces.count; ++piece) {
    for (Index i = 0; i < sum_size; ++i) sums[i] += sums[piece * sum_size + i];
  }
  if (out.weight) detail::transpose(sums.data(), width, channels, out.weight);
  if (out.bias) std::copy_n(sums.data() + width * channels, channels, out.bias);
  if (!out.state_in) return;
  for (Index s = 0; s < sequences.count; ++s) {
    if (sequences.begin(s) != sequences.end(s)) continue;
    T* const to = out.state_in + s * channels * past;
    if (dstate_out) {
      std::copy_n(dstate_out + s * channels * past, channels * past, to);
    } else {
      std::fill_n(to, channels * past, T(0));
    }
  }
}

}  // namespace ordo::kernels
