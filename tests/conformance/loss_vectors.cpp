// Losses that compare vectors.

#include "loss.hpp"
#include "ordo/ops/metric_loss.hpp"

namespace conformance {
namespace {

template <class T>
void run_cosine_embedding(const Case& c, RunMode mode, Report& report) {
  const auto config = read_loss<MarginConfig>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> a = run.input("x1"), b = run.input("x2");
  const Var<Index> target = run.template constant<Index>("target");
  run.output("loss", config.none() ? cosine_embedding_loss_each(a, b, target, config.margin)
                                   : cosine_embedding_loss(a, b, target, config.margin, config.of()));
  run.finish();
}
template <class T>
void run_margin_ranking(const Case& c, RunMode mode, Report& report) {
  const auto config = read_loss<MarginConfig>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> a = run.input("x1"), b = run.input("x2");
  const Var<Index> target = run.template constant<Index>("target");
  run.output("loss", config.none() ? margin_ranking_loss_each(a, b, target, config.margin)
                                   : margin_ranking_loss(a, b, target, config.margin, config.of()));
  run.finish();
}

struct TripletConfig : LossConfig {
  double p = 2, eps = 1e-6;
  bool swap = false;
  TripletConfig() { margin = 1; }
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("margin", s.margin);
    f("p", s.p);
    f("eps", s.eps);
    f("swap", s.swap);
  }
};
template <class T>
void run_triplet(const Case& c, RunMode mode, Report& report) {
  const auto config = read_loss<TripletConfig>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> anchor = run.input("anchor"), positive = run.input("positive"), negative = run.input("negative");
  const TripletParameters parameters{config.margin, config.p, config.eps, config.swap, config.of()};
  run.output("loss", config.none() ? triplet_loss_each(anchor, positive, negative, parameters)
                                   : triplet_loss(anchor, positive, negative, parameters));
  run.finish();
}

struct InfoNceConfig : InfoNceParameters {
  std::string similarity_name = "cosine";
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("scale", s.scale);
    f("similarity", s.similarity_name);
    f("symmetric", s.symmetric);
  }
};
template <class T>
void run_info_nce(const Case& c, RunMode mode, Report& report) {
  InfoNceConfig config;
  read_config(c.config(), config);
  if (config.similarity_name != "cosine" && config.similarity_name != "dot")
    fail<ConfigError>("config: similarity: unknown name \"" + config.similarity_name + "\"");
  config.similarity = config.similarity_name == "dot" ? Similarity::dot : Similarity::cosine;
  OpRun<T> run(c, mode, report);
  const Var<T> anchors = run.input("anchors"), positives = run.input("positives"), negatives = run.optional("negatives");
  run.output("loss", info_nce_loss(anchors, positives, negatives, config));
  run.finish();
}

}  // namespace

std::optional<Runner> find_vector_loss(std::string_view name) {
  if (name == "cosine_embedding") return Runner{run_cosine_embedding<float>, run_cosine_embedding<double>};
  if (name == "margin_ranking") return Runner{run_margin_ranking<float>, run_margin_ranking<double>};
  if (name == "triplet") return Runner{run_triplet<float>, run_triplet<double>};
  if (name == "info_nce") return Runner{run_info_nce<float>, run_info_nce<double>};
  return std::nullopt;
}

}  // namespace conformance
