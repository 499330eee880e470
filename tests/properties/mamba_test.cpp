// Mamba with padded batches and packed sequences, and over very long silences.

#include "ordo/eval/layers/ssm.hpp"
#include "ordo/core/denormals.hpp"
#include "properties/support.hpp"

using namespace properties;

TEMPLATE_TEST_CASE("properties: a padded or packed row of Mamba is the row alone", "", float, double) {
  using T = TestType;
  for_each_layer<T, Family::ssm>([]<class L>(const LayerEntry<L>& entry) {
    if constexpr (std::is_same_v<L, Mamba<T>>) {
      for (const auto& config : entry.configs) {
        Random random(3);
        const L layer(config, random);
        const std::array<Index, 4> lengths{9, 0, 17, 1};
        constexpr Index longest = 17, total = 27;
        const auto x = make_input<L>(config, 4, longest, 21);
        const Index width = x.extent(2);
        DynTensor<T, 3> packed(Index{1}, total, width), left = x, right = x;
        DynTensor<bool, 2> left_mask(Index{4}, longest), right_mask(Index{4}, longest);
        DynTensor<std::int64_t, 1> offsets(Index{5});
        left.fill(std::numeric_limits<T>::quiet_NaN());  // what stands at padded places must not matter
        right.fill(std::numeric_limits<T>::quiet_NaN());
        Index at = 0;
        for (Index b = 0; b < 4; ++b) {
          const Index n = lengths[static_cast<std::size_t>(b)];
          const T* from = x.data() + b * longest * width;
          std::copy_n(from, n * width, packed.data() + at * width);
          std::copy_n(from, n * width, right.data() + b * longest * width);
          std::copy_n(from, n * width, left.data() + (b * longest + longest - n) * width);
          for (Index t = 0; t < n; ++t) right_mask(b, t) = left_mask(b, longest - 1 - t) = true;
          at += n;
          offsets(b + 1) = at;
        }
        auto packed_state = layer.initial_state(4), left_state = packed_state, right_state = packed_state;
        const DynTensor<T, 3> y_packed = layer(packed, packed_state, Packing(offsets));
        const DynTensor<T, 3> y_left = layer(left, left_state, Padding(left_mask));
        const DynTensor<T, 3> y_right = layer(right, right_state, Padding(right_mask));
        CHECK(difference(y_packed, layer(packed, Packing(offsets))) <= tolerance<T>);
        const Index out = y_packed.extent(2);
        for (Index b = 0; b < 4; ++b) {
          const Index n = lengths[static_cast<std::size_t>(b)];
          auto state = layer.initial_state(1);
          if (n > 0) {
            const DynTensor<T, 3> y = layer(block(x, b, 1, 0, n), state);
            CHECK(difference(y, block(y_packed, 0, 1, offsets(b), n)) <= tolerance<T>);
            CHECK(difference(y, block(y_right, b, 1, 0, n)) <= tolerance<T>);
            CHECK(difference(y, block(y_left, b, 1, longest - n, n)) <= tolerance<T>);
          }
          bool zero = true;
          for (Index i = 0; i < (longest - n) * out; ++i) {
            zero = zero && y_right.data()[(b * longest + n) * out + i] == 0 && y_left.data()[b * longest * out + i] == 0;
          }
          CHECK(zero);
          const std::array<Index, 1> only{b};
          for (auto all : {packed_state, left_state, right_state}) {
            all.copy_rows(only);
            CHECK(difference(state.ssm, all.ssm) <= tolerance<T>);
            CHECK(difference(state.conv, all.conv) <= tolerance<T>);
          }
        }
      }
    }
  });
}

TEMPLATE_TEST_CASE("properties: a million zeros leave no denormal numbers in Mamba's state", "", float, double) {
  using T = TestType;
  const FlushDenormals flush;
  Random random(4);
  const Mamba<T> layer({.model_dim = 2, .inner_dim = 3, .state_dim = 2}, random);
  auto state = layer.initial_state(1);
  const auto sound = make_input<Mamba<T>>({.model_dim = 2}, 1, 1000, 22);
  static_cast<void>(layer(sound, state));
  const DynTensor<T, 3> silence(Index{1}, Index{1000}, Index{2});
  // Zeros through biases excite the state a little; what matters is that it settles on normal numbers or zero.
  Index denormal = 0, other = 0;
  for (int i = 0; i < 1000; ++i) {
    static_cast<void>(layer(silence, state));
    for_each_leaf(state, [&](const Path&, const auto& t) {
      for (Index k = 0; k < t.size(); ++k) {
        const int kind = std::fpclassify(t.data()[k]);
        denormal += kind == FP_SUBNORMAL;
        other += kind == FP_NAN || kind == FP_INFINITE;
      }
    });
  }
  CHECK(denormal == 0);
  CHECK(other == 0);
}
