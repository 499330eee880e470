#pragma once
/// \file
/// NameMap: where the tensors of a model stand in files that others write.

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"

namespace ordo {

/// The tensor of a file that holds a parameter: all of it, its transpose, or one of several that lie one after the other along the first
/// axis (of the transpose, if it is one): the fused projections of GPT-2 and PyTorch.
struct FilePlace {
  std::string name;
  std::size_t part = 0, parts = 1;
  bool transposed = false;
};

/// Renames parameters by the beginnings of their names. In a pattern `*` stands for one number, the same in both names; the longest
/// pattern that fits counts, names that none fits stay as they are.
///
///     NameMap names{{"layers.*.mixer_norm", "model.layers.*.input_layernorm"}, {"layers.*.mixer.q_proj", "h.*.attn.c_attn", 0, 3, true}};
///     names("layers.3.mixer_norm.weight").name == "model.layers.3.input_layernorm.weight"
class NameMap {
 public:
  struct Rule {
    std::string ours, theirs;
    std::size_t part = 0, parts = 1;
    bool transposed = false;
  };
  NameMap() = default;
  NameMap(std::initializer_list<Rule> rules) : rules_(rules) {}
  explicit NameMap(std::vector<Rule> rules) : rules_(std::move(rules)) {}

  /// The same with `prefix` before all names of the file but that of `except`, one of ours.
  NameMap with_prefix(const std::string& prefix, std::string_view except) const {
    NameMap map = *this;
    for (Rule& rule : map.rules_) {
      if (rule.ours != except) rule.theirs = prefix + rule.theirs;
    }
    return map;
  }

  FilePlace operator()(std::string_view ours) const {
    const Rule* best = nullptr;
    Match match{};
    for (const Rule& rule : rules_) {
      const Match m = fit(rule.ours, ours);
      if (m.fits && (best == nullptr || rule.ours.size() > best->ours.size())) {
        best = &rule;
        match = m;
      }
    }
    if (best == nullptr) return {std::string(ours)};
    FilePlace place{{}, best->part, best->parts, best->transposed};
    for (const char c : best->theirs) {
      if (c == '*') {
        place.name += match.number;
      } else {
        place.name += c;
      }
    }
    place.name += ours.substr(match.length);
    // A matrix is transposed, a bias has no other side.
    place.transposed = place.transposed && place.name.ends_with("weight");
    return place;
  }

 private:
  struct Match {
    bool fits = false;
    std::size_t length = 0;  // of the name
    std::string_view number;
  };
  static Match fit(std::string_view pattern, std::string_view name) {
    Match m;
    std::size_t at = 0;
    for (const char c : pattern) {
      if (c == '*') {
        const std::size_t end = std::min(name.find_first_not_of("0123456789", at), name.size());
        if (end == at) return {};
        m.number = name.substr(at, end - at);
        at = end;
      } else if (at < name.size() && name[at] == c) {
        ++at;
      } else {
        return {};
      }
    }
    m.fits = at == name.size() || name[at] == '.';  // whole segments
    m.length = at;
    return m;
  }

  std::vector<Rule> rules_;
};

}  // namespace ordo
