#pragma once
/// \file
/// Named members. Layers name their parameters and sub-layers, states their tensors, configurations their fields, all in the same way:
///
///     template <class Self, class F>
///     static void visit(Self& self, F&& f) {
///       f("weight", self.weight_);
///       if (self.bias_.present()) f("bias", self.bias_);
///     }
///
/// Loading, saving, optimisers, state copies, tests, benchmarks and documentation are loops over this.

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#if !defined(__GLIBCXX__)  // there the headers above bring the concepts, without the views, which are slow to compile
#include <ranges>
#endif

#include "ordo/core/extents.hpp"

namespace ordo {

namespace detail {
struct AnyVisitor {
  template <class M>
  void operator()(std::string_view, M&) const {}
};
}  // namespace detail

/// Has a static visit(self, f).
template <class M>
concept Visitable = requires(M& m, detail::AnyVisitor f) { std::remove_const_t<M>::visit(m, f); };

/// Where a member stands: names from the outermost to this one. Lives on the stack while a visit runs; a string only when asked.
class Path {
 public:
  Path(std::string_view name, const Path* parent, Index index = -1) noexcept : name_(name), parent_(parent), index_(index) {}

  std::string_view name() const noexcept { return name_; }
  /// "layers.0.mixer.in_proj.weight"
  std::string str() const {
    std::string s = parent_ != nullptr ? parent_->str() : std::string();
    const auto add = [&s](std::string_view part) {
      if (part.empty()) return;
      if (!s.empty()) s += '.';
      s += part;
    };
    add(name_);
    if (index_ >= 0) add(std::to_string(index_));
    return s;
  }

 private:
  std::string_view name_;
  const Path* parent_;
  Index index_;
};

namespace detail {
template <class M, class F>
void visit_member(const Path& path, M& member, F& f) {
  if constexpr (Visitable<M>) {
    std::remove_const_t<M>::visit(member, [&](std::string_view name, auto& inner) { visit_member(Path(name, &path), inner, f); });
  } else if constexpr (std::ranges::range<M> && !requires { typename M::extents_type; }) {
    if constexpr (Visitable<std::ranges::range_value_t<M>>) {
      Index i = 0;
      for (auto& inner : member) {
        const Path at(std::string_view(), &path, i++);
        std::ranges::range_value_t<M>::visit(inner, [&](std::string_view name, auto& deep) { visit_member(Path(name, &at), deep, f); });
      }
    } else {
      f(path, member);
    }
  } else {
    f(path, member);
  }
}
}  // namespace detail

/// Calls f(path, leaf) for everything in m that has no members of its own; vectors of visitable things are numbered.
template <Visitable M, class F>
void for_each_leaf(M& m, F&& f) {
  std::remove_const_t<M>::visit(m, [&](std::string_view name, auto& member) { detail::visit_member(Path(name, nullptr), member, f); });
}

}  // namespace ordo
