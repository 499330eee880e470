#pragma once
/// \file
/// The tensor concept: row-major, contiguous, rank known at compile time, each extent static or `dyn`.
///
///     Tensor<float, Extents<dyn, 64>> x(n, 64);       // owns; dynamic extents: 64-byte aligned memory from the pool
///     Tensor<float, Extents<8, 8>> w;                 // owns; static extents: inline, no heap
///     TensorView<const float, DynExtents<2>> v = x;   // borrows
///
/// Wherever an op takes a TensorLike, it also takes a row-major Eigen matrix, an Eigen vector, a std::vector, std::array or
/// std::span (rank 1), and a C++23 std::mdspan with the default layout.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>
#if !defined(__GLIBCXX__)  // there the headers above bring the concepts, without the views, which are slow to compile
#include <ranges>
#endif

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"
#include "ordo/core/memory.hpp"

namespace ordo {

template <class T, class E>
class TensorView;

namespace detail {

template <std::size_t R>
constexpr Index offset_of(const std::array<Index, R>& extents, const std::array<Index, R>& at) noexcept {
  Index offset = 0;
  for (std::size_t axis = 0; axis < R; ++axis) {
    ORDO_ASSERT(at[axis] >= 0 && at[axis] < extents[axis]);
    offset = offset * extents[axis] + at[axis];
  }
  return offset;
}

/// What Tensor and TensorView have in common.
template <class Derived, class T, class E>
class TensorInterface {
 public:
  static constexpr std::size_t rank() noexcept { return E::rank(); }
  Index extent(std::size_t axis) const noexcept { return self().extents()[axis]; }
  Index size() const noexcept { return self().extents().size(); }
  Shape shape() const noexcept { return Shape(self().extents()); }
  bool empty() const noexcept { return size() == 0; }

 protected:
  template <class... I>
  Index offset(I... at) const noexcept {
    static_assert(sizeof...(I) == E::rank(), "a tensor is indexed by one number for each of its axes");
    return offset_of<E::rank()>(self().extents().to_array(), {static_cast<Index>(at)...});
  }

 private:
  const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }
};

/// Storage of a tensor: inline for static extents, a block of the pool for others.
template <class T, class E, bool Static = E::is_static()>
class TensorMemory {
 public:
  TensorMemory() = default;
  explicit TensorMemory(Index n) : storage_(static_cast<std::size_t>(n) * sizeof(T)) {}
  T* data() noexcept { return static_cast<T*>(storage_.data()); }
  const T* data() const noexcept { return static_cast<const T*>(storage_.data()); }
  const Storage& storage() const noexcept { return storage_; }
  explicit TensorMemory(Storage storage) noexcept : storage_(std::move(storage)) {}

 private:
  Storage storage_;
};
template <class T, class E>
class TensorMemory<T, E, true> {
 public:
  TensorMemory() = default;
  explicit TensorMemory(Index) noexcept {}
  T* data() noexcept { return data_.data(); }
  const T* data() const noexcept { return data_.data(); }

 private:
  alignas(std::min<std::size_t>(memory_alignment, std::bit_ceil(sizeof(T) * static_cast<std::size_t>(E{}.size() + !E{}.size()))))
      std::array<T, static_cast<std::size_t>(E{}.size())> data_;
};

}  // namespace detail

struct Uninitialized {};
/// Asks a tensor constructor to leave the elements unset.
inline constexpr Uninitialized uninitialized{};

/// Owns its elements; copying copies them.
template <class T, class E>
class Tensor : public detail::TensorInterface<Tensor<T, E>, T, E> {
  static_assert(std::is_trivially_copyable_v<T>, "a tensor holds plain numbers");

 public:
  using value_type = T;
  using extents_type = E;

  /// Dynamic extents 0.
  Tensor() : memory_(E{}.size()) {
    if constexpr (E::is_static()) fill(T{});
  }
  Tensor(const E& extents, Uninitialized) : extents_(extents), memory_(extents.size()) {}
  explicit Tensor(const E& extents, T value = T{}) : Tensor(extents, uninitialized) { fill(value); }
  template <std::integral... I>
    requires(sizeof...(I) == E::rank() && sizeof...(I) > 0)
  explicit Tensor(I... extents) : Tensor(E(static_cast<Index>(extents)...)) {}
  /// The elements in row-major order.
  Tensor(const E& extents, std::initializer_list<T> values) : Tensor(extents, uninitialized) {
    if (static_cast<Index>(values.size()) != this->size()) {
      fail<ShapeError>({"tensor: ", values.size(), " values for shape ", this->shape()});
    }
    std::copy(values.begin(), values.end(), data());
  }

  Tensor(const Tensor& other) : Tensor(other.extents_, uninitialized) {
    std::copy_n(other.data(), other.size(), data());
  }
  Tensor(Tensor&& other) noexcept : extents_(other.extents_), memory_(std::move(other.memory_)) {
    if constexpr (!E::is_static()) other.extents_ = E{};
  }
  Tensor& operator=(const Tensor& other) {
    if (this == &other) return *this;
    if constexpr (!E::is_static()) {
      if (!(extents_ == other.extents_) || !memory_.storage().unique()) return *this = Tensor(other);
    }
    std::copy_n(other.data(), other.size(), data());
    return *this;
  }
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(extents_, other.extents_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Tensor() = default;

  /// Copies the elements of a view.
  template <class U, class F>
    requires std::same_as<std::remove_const_t<U>, T>
  explicit Tensor(const TensorView<U, F>& view) : Tensor(E(view.extents().to_array()), uninitialized) {
    std::copy_n(view.data(), view.size(), data());
  }

  const E& extents() const noexcept { return extents_; }
  T* data() noexcept { return memory_.data(); }
  const T* data() const noexcept { return memory_.data(); }
  T* begin() noexcept { return data(); }
  T* end() noexcept { return data() + this->size(); }
  const T* begin() const noexcept { return data(); }
  const T* end() const noexcept { return data() + this->size(); }

  template <std::convertible_to<Index>... I>
  T& operator()(I... at) noexcept {
    return data()[this->offset(at...)];
  }
  template <std::convertible_to<Index>... I>
  const T& operator()(I... at) const noexcept {
    return data()[this->offset(at...)];
  }

  void fill(T value) noexcept { std::fill_n(data(), this->size(), value); }

  /// The block behind a tensor with dynamic extents, to share without a copy. For code that treats it as constant.
  const Storage& storage() const noexcept
    requires(!E::is_static())
  {
    return memory_.storage();
  }
  /// A tensor over a shared block. Its elements must not be written while another owner reads them.
  static Tensor share(const E& extents, Storage storage) noexcept
    requires(!E::is_static())
  {
    Tensor t;
    t.extents_ = extents;
    t.memory_ = detail::TensorMemory<T, E>(std::move(storage));
    return t;
  }

 private:
  [[no_unique_address]] E extents_{};
  detail::TensorMemory<T, E> memory_;
};

/// Borrows elements that someone else owns; T may be const.
template <class T, class E>
class TensorView : public detail::TensorInterface<TensorView<T, E>, T, E> {
 public:
  using value_type = std::remove_const_t<T>;
  using extents_type = E;

  TensorView() = default;
  TensorView(T* data, const E& extents) noexcept : data_(data), extents_(extents) {}

  template <class F>
    requires(F::rank() == E::rank())
  TensorView(Tensor<value_type, F>& x) noexcept  // NOLINT(google-explicit-constructor): a view is what an owner lends
      : data_(x.data()), extents_(x.extents().to_array()) {}
  template <class F>
    requires(F::rank() == E::rank() && std::is_const_v<T>)
  TensorView(const Tensor<value_type, F>& x) noexcept  // NOLINT(google-explicit-constructor)
      : data_(x.data()), extents_(x.extents().to_array()) {}
  template <class U, class F>
    requires(F::rank() == E::rank() && std::is_convertible_v<U (*)[], T (*)[]> &&
             !(std::same_as<U, T> && std::same_as<E, F>))
  TensorView(const TensorView<U, F>& x)  // NOLINT(google-explicit-constructor)
      : data_(x.data()), extents_(x.extents().to_array()) {}

  const E& extents() const noexcept { return extents_; }
  T* data() const noexcept { return data_; }
  T* begin() const noexcept { return data_; }
  T* end() const noexcept { return data_ + this->size(); }

  template <std::convertible_to<Index>... I>
  T& operator()(I... at) const noexcept {
    return data_[this->offset(at...)];
  }

 private:
  T* data_ = nullptr;
  [[no_unique_address]] E extents_{};
};

template <class T, std::size_t R>
using DynTensor = Tensor<T, DynExtents<R>>;
template <class T, std::size_t R>
using DynView = TensorView<T, DynExtents<R>>;

// ---- view(x): anything tensor-like as a view of constant elements ----

namespace detail {

template <class X>
concept EigenLike = requires(const X& x) {
  typename X::Scalar;
  X::IsRowMajor;
  { x.data() } -> std::convertible_to<const typename X::Scalar*>;
  { x.rows() } -> std::convertible_to<Index>;
  { x.cols() } -> std::convertible_to<Index>;
};
template <class X>
concept MdspanLike = requires(const X& x) {
  typename X::element_type;
  typename X::layout_type;
  x.data_handle();
  { x.is_exhaustive() } -> std::convertible_to<bool>;
  { X::rank() } -> std::convertible_to<std::size_t>;
};
template <class X>
concept NumberRange = std::ranges::contiguous_range<const X> && std::ranges::sized_range<const X> &&
                      std::is_arithmetic_v<std::ranges::range_value_t<const X>> && !EigenLike<X>;

}  // namespace detail

template <class T, class E>
TensorView<const T, E> view(const Tensor<T, E>& x) noexcept {
  return {x.data(), x.extents()};
}
template <class T, class E>
TensorView<const std::remove_const_t<T>, E> view(const TensorView<T, E>& x) noexcept {
  return {x.data(), x.extents()};
}
template <detail::EigenLike X>
auto view(const X& x) {
  using T = typename X::Scalar;
  if constexpr (X::IsVectorAtCompileTime) {
    return DynView<const T, 1>(x.data(), DynExtents<1>(static_cast<Index>(x.size())));
  } else {
    static_assert(X::IsRowMajor, "Ordo's tensors are row-major: give the Eigen matrix the option Eigen::RowMajor");
    return DynView<const T, 2>(x.data(), DynExtents<2>(static_cast<Index>(x.rows()), static_cast<Index>(x.cols())));
  }
}
template <detail::MdspanLike X>
auto view(const X& x) {
  using T = std::remove_const_t<typename X::element_type>;
  std::array<Index, X::rank()> extents{};
  for (std::size_t axis = 0; axis < X::rank(); ++axis) extents[axis] = static_cast<Index>(x.extent(axis));
  if (!x.is_exhaustive()) fail<ShapeError>("view: an mdspan must be contiguous");
  return DynView<const T, X::rank()>(x.data_handle(), DynExtents<X::rank()>(extents));
}
template <class X>
  requires(detail::NumberRange<X> && !requires { typename X::extents_type; })
auto view(const X& x) {
  using T = std::ranges::range_value_t<const X>;
  return DynView<const T, 1>(std::ranges::data(x), DynExtents<1>(static_cast<Index>(std::ranges::size(x))));
}

namespace detail {
/// Specialised to true by the types that are tensor-like without a view() of the form above.
template <class X>
inline constexpr bool is_dynamic_rank = false;
}  // namespace detail

/// Anything that an op takes: tensors, views, parameters, tracked tensors, Eigen matrices, contiguous ranges.
template <class X>
concept TensorLike = detail::is_dynamic_rank<X> || requires(const X& x) { view(x); };

namespace detail {
template <class X>
struct TensorTraits {
  using View = decltype(view(std::declval<const X&>()));
  using value_type = typename View::value_type;
  static constexpr std::size_t rank = View::rank();
};
}  // namespace detail

template <TensorLike X>
using value_type_of = typename detail::TensorTraits<X>::value_type;
template <TensorLike X>
inline constexpr std::size_t rank_of = detail::TensorTraits<X>::rank;

}  // namespace ordo
