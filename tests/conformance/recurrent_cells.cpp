// Cells: one step without a time axis.

#include "layers.hpp"
#include "ordo/nn/recurrent/cells.hpp"

namespace conformance {
namespace {

template <class L>
void run_cell(const Case& c, RunMode mode, Report& report) {
  using T = typename L::value_type;
  typename L::Config config;
  read_config(c.config(), config);
  Random random(1);
  L layer(config, random);
  load_model(c.source(), layer, {.ignore = [](const std::string& name) { return !name.starts_with("param."); },
                                 .rename = [](const std::string& name) { return "param." + name; }});
  const auto x = c.tensor<T, 2>("input.x");
  auto start = layer.initial_state(x.extent(0));
  load_state<L>(c, "state_in", start);
  if (mode == RunMode::whole) {
    if (c.names("state_in").empty()) report.compare("output.y", borrow(layer(x)).copy());
    report.compare("output.y", borrow(layer(x, start)).copy());
    compare_state<L>(report, start);
    return;
  }
  if (mode != RunMode::backward) fail<UsageError>("a cell is one step: it runs whole or backward");
  Tape tape;
  const auto tracked = track(tape, x);
  const auto before = track(tape, start);
  auto state = before;
  const auto y = layer(tracked, state);
  report.compare("output.y", y.var().value);
  std::vector<Tape::Seed> seeds{seed_of<T>(c, "grad_output.y", y)};
  for_each_leaf(state, [&](const Path& path, const auto& leaf) { seeds.push_back(seed_of<T>(c, "grad_state_out." + path.str(), leaf)); });
  const Gradients gradients = tape.backward(seeds);
  report.compare("grad_input.x", gradients.of(tracked));
  compare_parameters(report, layer, gradients);
  for_each_leaf(before, [&](const Path& path, const auto& leaf) { report.compare("grad_state_in." + path.str(), gradients.of(leaf)); });
}

}  // namespace

std::optional<Runner> find_recurrent_cell(std::string_view name) {
  if (name == "rnn_cell") return Runner{run_cell<RnnCell<float>>, run_cell<RnnCell<double>>};
  if (name == "lstm_cell") return Runner{run_cell<LstmCell<float>>, run_cell<LstmCell<double>>};
  if (name == "gru_cell") return Runner{run_cell<GruCell<float>>, run_cell<GruCell<double>>};
  return std::nullopt;
}

}  // namespace conformance
