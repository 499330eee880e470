#pragma once
/// \file
/// Dropout from counter-based random numbers: whether an element is kept is a function of (seed, stream, place) alone, the same for any
/// number of threads, and computed again in the backward pass instead of stored.

#include <algorithm>
#include <cstdint>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/core/random.hpp"

namespace ordo {

/// x / (1 - rate) where an element is kept, else 0. Linear with a diagonal matrix: its own adjoint.
struct DropoutOp {
  static constexpr const char* name = "dropout";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  double rate = 0;
  std::uint64_t seed = 0, stream = 0;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    // P(bits < threshold) = rate to 2^-32.
    const auto threshold = static_cast<std::uint64_t>(rate * 0x1p32);
    const T scale = static_cast<T>(1 / (1 - rate));
    constexpr Index grain = 1 << 14;  // a multiple of the four numbers of a block
    parallel_for(x.size(), grain, [&](Index begin, Index end) {
      for (Index i = begin; i < end; i += 4) {
        const auto counter = static_cast<std::uint64_t>(i / 4);
        const Random::Block bits =
            Random::block(seed, {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                                 static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)});
        for (Index k = 0; k < std::min<Index>(4, end - i); ++k) {
          y.data()[i + k] = bits[static_cast<std::size_t>(k)] < threshold ? T(0) : scale * x.data()[i + k];
        }
      }
    });
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(*this, p.grad(0)));
  }
};

/// Sets each element to 0 with probability `rate`, 0 <= rate < 1, and divides the others by 1 - rate. Takes four draws from `random`
/// whatever the size of x, so that the stream of a program does not depend on shapes. For layers that are to drop in training only,
/// see Dropout. Can be differentiated any number of times.
///
/// Srivastava et al. 2014.
template <TensorLike X>
auto dropout(const X& x, double rate, Random& random) {
  if (!(rate >= 0 && rate < 1)) fail<ConfigError>({"dropout: rate is ", rate, ", expected 0 <= rate < 1"});
  DropoutOp op{rate};
  for (std::uint64_t* word : {&op.seed, &op.stream}) {
    *word = random.bits();
    *word = *word << 32 | random.bits();
  }
  return apply<rank_of<X>>(op, x);
}

}  // namespace ordo
