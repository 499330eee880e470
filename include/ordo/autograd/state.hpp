#pragma once
/// \file
/// What a stream remembers: tensors, plain or tracked, with the batch as their first axis.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/visit.hpp"

namespace ordo {

/// A tensor of a state. The batch is its first axis. Default-made it is absent (a layer option left the memory out).
template <Mode M, class T, std::size_t R>
using StateTensor = Value<M, T, R>;

/// What every state can do, by its visit. Derived::visit names the tensors.
///
/// A stream begins with all tensors zero; a state for which that is wrong hides reset().
template <class Derived>
class StateInterface {
 public:
  /// All rows as at the beginning of a stream.
  void reset() {
    for_each_leaf(self(), [](const Path&, auto& t) { std::fill_n(t.data(), t.size(), typename std::remove_cvref_t<decltype(t)>::value_type{}); });
  }
  /// One row of the batch as at the beginning of a stream.
  void reset(Index row) {
    for_each_leaf(self(), [row](const Path& path, auto& t) {
      const Index stride = row_stride(path, t, row);
      std::fill_n(t.data() + row * stride, stride, typename std::remove_cvref_t<decltype(t)>::value_type{});
    });
  }
  /// Row i becomes what row indices[i] was: beam reordering, selecting rows of a batch. The batch takes the size of `indices`.
  void copy_rows(std::span<const Index> indices) {
    for_each_leaf(self(), [indices](const Path& path, auto& t) {
      using Leaf = std::remove_cvref_t<decltype(t)>;
      auto extents = t.extents().to_array();
      extents[0] = static_cast<Index>(indices.size());
      Leaf out(typename Leaf::extents_type(extents), uninitialized);
      Index i = 0;
      for (Index from : indices) {
        const Index stride = row_stride(path, t, from);
        std::copy_n(t.data() + from * stride, stride, out.data() + i++ * stride);
      }
      t = std::move(out);
    });
  }
  /// A copy to return to: `state.restore(saved)`.
  Derived snapshot() const { return self(); }
  void restore(const Derived& saved) { self() = saved; }
  /// The bytes of all tensors: what one stream (times the batch) costs to remember.
  std::size_t size_bytes() const {
    std::size_t bytes = 0;
    for_each_leaf(self(), [&bytes](const Path&, const auto& t) {
      bytes += static_cast<std::size_t>(t.size()) * sizeof(typename std::remove_cvref_t<decltype(t)>::value_type);
    });
    return bytes;
  }

 private:
  template <class Leaf>
  static Index row_stride(const Path& path, const Leaf& t, Index row) {
    const Index rows = t.extent(0);
    if (row < 0 || row >= rows) {
      fail<ShapeError>({"state: row ", row, " of ", path.str(), ", which has ", rows});
    }
    return t.size() / rows;
  }
  Derived& self() { return static_cast<Derived&>(*this); }
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

/// A plain state with every tensor put on a tape: to train through a carried state, or for its gradient.
template <template <Mode> class State>
State<Mode::recorded> track(Tape& tape, const State<Mode::plain>& plain) {
  State<Mode::recorded> out;
  if constexpr (requires { plain.template like<Mode::recorded>(); }) out = plain.template like<Mode::recorded>();
  using Slot = std::pair<detail::ErasedVar, AnyTensor<std::int32_t>>;
  std::vector<Slot, PoolAllocator<Slot>> leaves;
  for_each_leaf(plain, [&](const Path&, const auto& t) {
    using T = typename std::remove_cvref_t<decltype(t)>::value_type;
    const auto tracked = track(tape, t);
    if constexpr (std::is_floating_point_v<T>) {
      leaves.push_back({tracked.var(), {}});
    } else {
      leaves.push_back({{}, tracked.var().value});
    }
  });
  std::size_t i = 0;
  for_each_leaf(out, [&](const Path&, auto& t) {
    using Leaf = std::remove_cvref_t<decltype(t)>;
    using T = typename Leaf::value_type;
    if constexpr (std::is_floating_point_v<T>) {
      t = Leaf(leaves[i++].first.template as<T>());
    } else {
      t = Leaf(Var<T>{leaves[i++].second, &tape, -1});
    }
  });
  return out;
}

}  // namespace ordo
