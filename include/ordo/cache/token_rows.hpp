#pragma once
/// \file
/// TokenRows: vectors of the tokens of a stream, one behind the other.

#include <algorithm>

#include "ordo/autograd/state.hpp"
#include "ordo/cache/kv_cache.hpp"
#include "ordo/ops/attention_options.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// `values` [B, n, D] and `length` [B], the tokens that each row has seen. Plain, n is a capacity that doubles when it is reached;
/// recorded, every row has n tokens.
template <Mode M, class T>
struct TokenRows : StateInterface<TokenRows<M, T>> {
  StateTensor<M, T, 3> values;
  StateTensor<M, std::int32_t, 1> length;

  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("values", s.values);
    f("length", s.length);
  }
  /// Rows that are all full.
  static TokenRows of(DynTensor<T, 3> values)
    requires(M == Mode::plain)
  {
    TokenRows rows;
    rows.length = DynTensor<std::int32_t, 1>(DynExtents<1>(values.extent(0)), static_cast<std::int32_t>(values.extent(1)));
    rows.values = std::move(values);
    return rows;
  }

  Index longest() const { return length.size() == 0 ? 0 : *std::max_element(length.data(), length.data() + length.size()); }
  /// The tokens of all rows; a UsageError if they differ.
  Index common_length() const {
    const Index n = longest();
    if (std::any_of(length.data(), length.data() + length.size(), [n](std::int32_t t) { return t != n; })) {
      fail<UsageError>("a stream whose rows have different lengths can neither be recorded nor written");
    }
    return n;
  }
  void reserve(Index tokens)
    requires(M == Mode::plain)
  {
    if (tokens <= values.extent(1)) return;
    DynTensor<T, 3> bigger(values.extent(0), tokens, values.extent(2));
    const Index n = values.extent(1) * values.extent(2);
    for (Index b = 0; b < values.extent(0); ++b) std::copy_n(values.data() + b * n, n, bigger.data() + b * tokens * values.extent(2));
    values = std::move(bigger);
  }
  /// Writes x [B, L, D] behind the tokens of each row. Returns where the new tokens stand, if that is not at the end of all rows.
  Visibility append(const DynTensor<T, 3>& x)
    requires(M == Mode::plain)
  {
    const Index width = values.extent(2), tokens = x.extent(1), batch = values.extent(0);
    if (x.extent(0) != batch || x.extent(2) != width) {
      fail<ShapeError>({"stream: an input of ", x.extent(0), " rows, a state of ", batch});
    }
    const Index needed = longest() + tokens;
    if (needed > values.extent(1)) reserve(std::max(needed, 2 * values.extent(1)));
    typename KvCache<M, T>::Counts past(length.begin(), length.end());
    for (Index b = 0; b < batch; ++b) {
      std::copy_n(x.data() + b * tokens * width, tokens * width, values.data() + (b * values.extent(1) + length(b)) * width);
      length(b) += static_cast<std::int32_t>(tokens);
    }
    Visibility visible;
    if (!KvCache<M, T>::uniform(past)) visible.query_positions = KvCache<M, T>::positions_after(past, tokens);
    return visible;
  }
  /// The first n tokens.
  DynTensor<T, 3> first(Index n) const
    requires(M == Mode::plain)
  {
    return slice(values, 1, 0, n);
  }
};

}  // namespace ordo
