#pragma once
/// \file
/// Matrix products: matmul (batched, transposed on either side) and linear. Both can be differentiated any number of times.

#include <array>
#include <string>
#include <utility>

#include "ordo/kernels/gemm.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// op(A) op(B) over the last two axes; the axes before them are a batch and have to agree, or B has none and serves all.
struct MatmulOp {
  static constexpr const char* name = "matmul";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  bool transpose_a = false, transpose_b = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    const std::size_t ra = a.rank(), rb = b.rank();
    const auto bad = [&] {
      fail<ShapeError>({"matmul: ", a.shape(), (transpose_a ? "^T" : ""), " times ", b.shape(), (transpose_b ? "^T" : "")});
    };
    if (ra < 2 || rb < 2 || (rb != ra && rb != 2)) bad();
    const Index m = a.shape().back(transpose_a ? 0 : 1), k = a.shape().back(transpose_a ? 1 : 0);
    const Index kb = b.shape().back(transpose_b ? 0 : 1), n = b.shape().back(transpose_b ? 1 : 0);
    if (k != kb) bad();
    Shape shape = a.shape();
    shape[ra - 2] = m;
    shape[ra - 1] = n;
    AnyTensor<T> y(shape);
    Index batch = a.shape().size(0, ra - 2), rows = m;
    if (rb > 2) {
      for (std::size_t axis = 0; axis < ra - 2; ++axis) {
        if (a.extent(axis) != b.extent(axis)) bad();
      }
    } else if (!transpose_a) {  // one product for the whole batch
      rows *= batch;
      batch = 1;
    }
    const Index step_a = rows * k, step_b = rb > 2 ? k * n : 0;
    kernels::GemmArgs<T> args;
    args.m = rows;
    args.n = n;
    args.k = k;
    args.c_stride = n;
    for (Index i = 0; i < batch; ++i) {
      args.a = transpose_a ? kernels::MatrixRef<T>{a.data() + i * step_a, 1, m} : kernels::MatrixRef<T>{a.data() + i * step_a, k, 1};
      args.b = transpose_b ? kernels::MatrixRef<T>{b.data() + i * step_b, 1, k} : kernels::MatrixRef<T>{b.data() + i * step_b, n, 1};
      args.c = y.data() + i * m * n;
      kernels::gemm(args);
    }
    return y;
  }

  template <class T>
  void backward(Pullback<T>& p) const;

 private:
  /// [..., m, k] as one matrix [rows, k], for products that sum over the batch.
  template <class T>
  static Var<T> flat(const Var<T>& x) {
    const Shape& s = x.shape();
    return s.rank() == 2 ? x : apply<dynamic_rank>(ReshapeOp{Shape{s.size(0, s.rank() - 1), s.back()}}, x);
  }
};

template <class T>
void MatmulOp::backward(Pullback<T>& p) const {
  const Var<T> dy = p.grad(0), a = p.input(0), b = p.input(1);
  const auto product = [](bool ta, bool tb, const Var<T>& x, const Var<T>& y) {
    return apply<dynamic_rank>(MatmulOp{ta, tb}, x, y);
  };
  const bool shared_b = b.shape().rank() == 2 && a.shape().rank() > 2;
  if (p.needs(0)) {
    // With one B for a batch of transposed A's, B takes the left side of each product only as a batch of copies.
    if (transpose_a && shared_b) fail<UsageError>("matmul: gradient of a transposed batch times one matrix; transpose() it first");
    p.add(0, transpose_a ? product(transpose_b, true, b, dy) : product(false, !transpose_b, dy, b));
  }
  if (p.needs(1)) {
    const Var<T> fa = shared_b ? flat(a) : a, fy = shared_b ? flat(dy) : dy;
    p.add(1, transpose_b ? product(true, transpose_a, fy, fa) : product(!transpose_a, false, fa, fy));
  }
}

/// A B (or with transposes): a [..., m, k], b [..., k, n] or [k, n] -> [..., m, n].
template <TensorLike A, TensorLike B>
auto matmul(const A& a, const B& b, bool transpose_a = false, bool transpose_b = false) {
  return apply<rank_of<A>>(MatmulOp{transpose_a, transpose_b}, a, b);
}

/// x W^T + b, and what can be fused behind it where nothing is recorded.
struct LinearOp {
  static constexpr const char* name = "linear";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  const void* packed = nullptr;  // PackedMatrix<T> of the weight, if it was packed already
  Activation activation = Activation::none;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x, const AnyTensor<T>& weight, const AnyTensor<T>& bias,
                       const AnyTensor<T>& residual) const {
    if (weight.rank() != 2 || x.rank() == 0 || x.shape().back() != weight.extent(1)) {
      fail<ShapeError>({"linear: x has shape ", x.shape(), ", the weight ", weight.shape(), "; the last axis of x must be the weight's second"});
    }
    const Index in = weight.extent(1), out = weight.extent(0);
    if (bias.present() && !(bias.shape() == Shape{out})) {
      fail<ShapeError>({"linear: the bias has shape ", bias.shape(), ", expected [", out, "]"});
    }
    AnyTensor<T> y(x.shape().with_back(out));
    if (residual.present() && !(residual.shape() == y.shape())) {
      fail<ShapeError>({"linear: the residual has shape ", residual.shape(), ", expected ", y.shape()});
    }
    kernels::GemmArgs<T> args;
    args.m = in == 0 ? 0 : x.size() / in;
    args.n = out;
    args.k = in;
    args.a = {x.data(), in, 1};
    args.b = {weight.data(), 1, in};
    args.packed = static_cast<const kernels::PackedMatrix<T>*>(packed);
    args.c = y.data();
    args.c_stride = out;
    args.epilogue = {bias.data(), activation, residual.data(), out};
    kernels::gemm(args);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> dy = p.grad(0), x = p.input(0), w = p.input(1);
    if (p.needs(0)) p.add(0, x.shape().rank() == 1 ? row_times(dy, w) : apply<dynamic_rank>(MatmulOp{false, false}, dy, w));
    if (p.needs(1)) p.add(1, apply<dynamic_rank>(MatmulOp{true, false}, rows(dy), rows(x)));
    if (p.needs(2)) p.add(2, detail::unbroadcast(dy, Shape{w.shape()[0]}));
    if (p.needs(3)) p.add(3, dy);
  }

 private:
  template <class T>
  static Var<T> rows(const Var<T>& x) {
    const Shape& s = x.shape();
    return s.rank() == 2 ? x : apply<dynamic_rank>(ReshapeOp{Shape{s.size(0, s.rank() - 1), s.back()}}, x);
  }
  template <class T>
  static Var<T> row_times(const Var<T>& dy, const Var<T>& w) {
    return apply<dynamic_rank>(ReshapeOp{Shape{w.shape()[1]}}, apply<dynamic_rank>(MatmulOp{false, false}, rows(dy), w));
  }
};

namespace detail {
/// The panels of a weight [out, in], packed at the first call and kept with the parameter until it is written.
template <class T, class E>
const kernels::PackedMatrix<T>* packed_weight(const Parameter<T, E>& w) {
  struct Panels {
    kernels::PackedMatrix<T> matrix;
  };
  const Index out = w.value().extent(0), in = w.value().extent(1);
  return &w.template derived<Panels>([&] { return Panels{kernels::pack_b<T>({w.value().data(), 1, in}, in, out)}; }).matrix;
}
/// From how many rows on panels beat the weight as it lies: below, a product is a stream over W's rows.
inline constexpr Index packing_rows = 5;
}  // namespace detail

/// f(x W^T + b) + residual: x [..., in], weight [out, in], bias [out] or none -> [..., out].
///
/// Recorded, the activation and the residual are ops of their own; plain, they are fused into the product, and a Parameter's
/// weight is packed once.
template <TensorLike X, TensorLike W, class B, class R = None>
auto linear(const X& x, const W& weight, const B& bias, Activation f = Activation::none, const R& residual = none) {
  constexpr Mode mode = mode_of<X, W, B, R>;
  LinearOp op;
  if constexpr (mode == Mode::plain) {
    if constexpr (is_parameter<W>) {
      const auto v = view(x);
      if (v.extent(v.rank() - 1) > 0 && v.size() / v.extent(v.rank() - 1) >= detail::packing_rows) op.packed = detail::packed_weight(weight);
    }
    op.activation = f;
    return apply<rank_of<X>>(op, x, weight, bias, residual);
  } else {
    auto y = [&] {
      auto product = apply<rank_of<X>>(op, x, weight, bias, none);
      return f == Activation::none ? product : activation(product, f);
    }();
    if constexpr (std::same_as<R, None>) {
      return y;
    } else {
      return add(y, residual);
    }
  }
}

}  // namespace ordo
