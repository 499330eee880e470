#pragma once
/// \file
/// Rows of a table by number, and their adjoint. Both can be differentiated any number of times.

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ordo/ops/shape.hpp"

namespace ordo {

namespace detail {

/// An integer tensor as the int32 that ops hold. Shared if it already is one that owns its block, else copied.
template <TensorLike Ids>
AnyTensor<std::int32_t> hold_ids(const Ids& ids) {
  using I = value_type_of<Ids>;
  static_assert(std::integral<I>, "ids are integers");
  if constexpr (is_tracked<Ids> && std::same_as<I, std::int32_t>) {
    return ids.var().value;
  } else {
    const auto v = view(ids);
    AnyTensor<std::int32_t> held{Shape(v.extents())};
    for (Index i = 0; i < held.size(); ++i) {
      const auto id = static_cast<long long>(v.data()[i]);
      if (id < INT32_MIN || id > INT32_MAX) fail<UsageError>({"ids: ", id, " does not fit 32 bits"});
      held.data()[i] = static_cast<std::int32_t>(id);
    }
    return held;
  }
}

}  // namespace detail

/// y[i, :] = scale * table[ids[i], :]. An id of -1 gives a row of zeros (`padding` tokens of packed batches).
struct GatherRowsOp {
  static constexpr const char* name = "gather_rows";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<std::int32_t> ids;
  double scale = 1;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& table) const {
    const Index rows = table.extent(0), n = table.shape().size(1, table.rank());
    Shape shape = ids.shape();
    for (std::size_t axis = 1; axis < table.rank(); ++axis) shape.push_back(table.extent(axis));
    AnyTensor<T> y(shape);
    for (Index i = 0; i < ids.size(); ++i) {
      const Index id = ids.data()[i];
      T* out = y.data() + i * n;
      if (id == -1) {
        std::fill_n(out, n, T{0});
        continue;
      }
      if (id < 0 || id >= rows) {
        fail<UsageError>({"embedding: id ", id, " at place ", i, ", the table has ", rows, " rows"});
      }
      const T* in = table.data() + id * n;
      for (Index j = 0; j < n; ++j) out[j] = static_cast<T>(scale) * in[j];
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const;
};

/// y[ids[i], :] += scale * x[i, :] in a table of zeros with `rows` rows: the adjoint of GatherRowsOp. Row `skip` stays zero.
struct ScatterRowsOp {
  static constexpr const char* name = "scatter_rows";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<std::int32_t> ids;
  Shape shape;  // of the table
  double scale = 1;
  Index skip = -1;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(shape, T{0});
    const Index n = shape.size(1, shape.rank());
    for (Index i = 0; i < ids.size(); ++i) {
      const Index id = ids.data()[i];
      if (id == -1 || id == skip) continue;
      T* out = y.data() + id * n;
      const T* in = x.data() + i * n;
      for (Index j = 0; j < n; ++j) out[j] += static_cast<T>(scale) * in[j];
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    AnyTensor<std::int32_t> seen = ids;
    if (skip >= 0) {
      seen = ids.copy();
      for (Index i = 0; i < seen.size(); ++i) {
        if (seen.data()[i] == skip) seen.data()[i] = -1;
      }
    }
    p.add(0, apply<dynamic_rank>(ReshapeOp{p.input(0).shape()}, apply<dynamic_rank>(GatherRowsOp{seen, scale}, p.grad(0))));
  }
};

template <class T>
void GatherRowsOp::backward(Pullback<T>& p) const {
  p.add(0, apply<dynamic_rank>(ScatterRowsOp{ids, p.input(0).shape(), scale}, p.grad(0)));
}

/// GatherRowsOp whose `padding` row gets no gradient.
struct EmbeddingOp : GatherRowsOp {
  static constexpr const char* name = "embedding";
  Index padding = -1;
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(ScatterRowsOp{ids, p.input(0).shape(), scale, padding}, p.grad(0)));
  }
};

/// y[..., :] = scale * table[ids[...], :]; ids any integers (tracked ones record). Row `padding_index` is looked up like any
/// other and gets gradient 0.
template <TensorLike Table, TensorLike Ids>
auto embedding(const Table& table, const Ids& ids, double scale = 1, Index padding_index = -1) {
  EmbeddingOp op;
  op.ids = detail::hold_ids(ids);
  op.scale = scale;
  op.padding = padding_index;
  return apply_in<rank_of<Ids> + 1>(recorder(table, ids), op, table);
}

/// Rows of a table: y[..., :] = table[ids[...], :]; an id of -1 gives a row of zeros. table: [rows, ...], ids: any integers.
template <TensorLike Table, TensorLike Ids>
auto gather_rows(const Table& table, const Ids& ids) {
  return apply_in<rank_of<Ids> + rank_of<Table> - 1>(recorder(table, ids), GatherRowsOp{detail::hold_ids(ids)}, table);
}

/// The adjoint of gather_rows: y[ids[i], ...] += x[i, ...] in a table of zeros [rows, ...]; -1 goes nowhere. x: [n, ...], ids: [n].
template <TensorLike X, TensorLike Ids>
auto scatter_rows(const X& x, const Ids& ids, Index rows) {
  static_assert(rank_of<Ids> == 1 && rank_of<X> != dynamic_rank, "scatter_rows: one id for each row of x");
  ScatterRowsOp op{detail::hold_ids(ids), detail::shape_of(x)};
  if (op.ids.extent(0) != op.shape[0]) {
    fail<ShapeError>("scatter_rows: " + std::to_string(op.ids.extent(0)) + " ids for x of shape " + to_string(op.shape));
  }
  for (Index i = 0; i < op.ids.size(); ++i) {
    if (op.ids.data()[i] < -1 || op.ids.data()[i] >= rows) {
      fail<UsageError>("scatter_rows: id " + std::to_string(op.ids.data()[i]) + " at place " + std::to_string(i) + ", the table has " +
                       std::to_string(rows) + " rows");
    }
  }
  op.shape[0] = rows;
  return apply_in<rank_of<X>>(recorder(x, ids), op, x);
}

}  // namespace ordo
