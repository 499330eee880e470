#pragma once
// What the cases of the optimizer family share.

#include <functional>
#include <tuple>

#include "ordo/autograd/parameter.hpp"
#include "ordo/core/visit.hpp"
#include "report.hpp"

namespace conformance {

// Parameters under names of a case's own, of ranks 1 to 4 (a scalar becomes a vector of one).
template <class T>
class NamedParameters {
 public:
  void add(const std::string& name, const AnyTensor<T>& value) {
    const AnyTensor<T> x = value.rank() == 0 ? value.reshaped(Shape{1}) : value;
    with_rank(x.rank(), [&]<std::size_t R>() {
      DynTensor<T, R> copy(x.shape().template extents<R>());
      std::copy_n(x.data(), x.size(), copy.data());
      std::get<R - 1>(all_).emplace_back(name, DynParameter<T, R>(std::move(copy)));
    });
  }
  template <class F>
  void each(F&& f) const {
    visit(*this, f);
  }
  template <class F>
  void each(F&& f) {
    visit(*this, f);
  }
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    std::apply(
        [&](auto&... list) {
          const auto one = [&](auto& parameters) {
            for (auto& [name, p] : parameters) f(name, p);
          };
          (one(list), ...);
        },
        s.all_);
  }

 private:
  template <std::size_t R>
  using List = std::vector<std::pair<std::string, DynParameter<T, R>>>;
  std::tuple<List<1>, List<2>, List<3>, List<4>> all_;
};

std::optional<Runner> find_clipping(std::string_view name);

}  // namespace conformance
