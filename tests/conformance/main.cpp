// ordo_conformance: checks Ordo against golden cases.

#include <cstdio>
#include <cstring>
#include <exception>
#include <system_error>

#include "report.hpp"

namespace conformance {
namespace {

namespace fs = std::filesystem;

constexpr const char* usage =
    "usage: ordo_conformance [--dtype float32|float64|both] [--list] PATH...\n"
    "Runs conformance cases (files NAME--VARIANT.safetensors, checkpoint folders with case.safetensors, or folders of\n"
    "these) and prints one line a case and mode. --list prints the cases without running them.\n";

struct Options {
  bool float32 = true, float64 = true, list = false;
  std::vector<fs::path> paths;
};

bool is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / "config.json", ignored) && fs::is_regular_file(folder / "case.safetensors", ignored);
}

// The cases under a path, sorted: files, and checkpoint folders.
void collect(const fs::path& path, std::vector<fs::path>& cases) {
  if (fs::is_directory(path)) {
    if (is_checkpoint(path)) {
      cases.push_back(path);
      return;
    }
    std::vector<fs::path> inner;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.is_directory() || entry.path().extension() == ".safetensors") inner.push_back(entry.path());
    }
    std::sort(inner.begin(), inner.end());
    for (const fs::path& p : inner) collect(p, cases);
  } else if (path.filename() == "case.safetensors" && is_checkpoint(path.parent_path())) {
    cases.push_back(path.parent_path());
  } else {
    cases.push_back(path);
  }
}

std::string label_of(const fs::path& path) {
  const fs::path clean = (path / "").lexically_normal().parent_path();  // "folder/" is "folder"
  return clean.extension() == ".safetensors" ? clean.stem().string() : clean.filename().string();
}

std::optional<Runner> find_layer(std::string_view name) {
  if (const auto run = find_core_layer(name, float())) return Runner{run, find_core_layer(name, double())};
  if (const auto run = find_ssm_layer(name, float())) return Runner{run, find_ssm_layer(name, double())};
  if (const auto run = find_softmax_layer(name, float())) return Runner{run, find_softmax_layer(name, double())};
  if (const auto run = find_recurrent_layer(name, float())) return Runner{run, find_recurrent_layer(name, double())};
  if (const auto run = find_stack_layer(name, float())) return Runner{run, find_stack_layer(name, double())};
  return std::nullopt;
}

class Session {
 public:
  explicit Session(const Options& options) : options_(options) {}

  void run(const fs::path& path) {
    const std::string label = label_of(path);
    try {
      if (fs::is_directory(path)) {
        run_checkpoint(label, path);
      } else {
        run_file(label, path);
      }
    } catch (const std::exception& e) {
      record(label, "", "", false, e.what());
    }
  }
  bool finish() const {
    if (!options_.list) std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 && (options_.list || passed_ > 0);
  }
  void record(const std::string& label, std::string_view mode, const char* dtype, bool ok, const std::string& text) {
    ++(ok ? passed_ : failed_);
    std::printf("%s  %-40s %-8.*s %-7s  %s\n", ok ? "pass" : "FAIL", label.c_str(), static_cast<int>(mode.size()), mode.data(), dtype,
                text.c_str());
  }

 private:
  void run_file(const std::string& label, const fs::path& path) {
    const Case c(path);
    std::optional<Runner> runner;
    for (const auto find : {find_op, find_core_op, find_position_op, find_softmax_op, find_recurrent_cell, find_stack_model, find_loss, find_optimizer, find_decoding, find_layer}) {
      if (!runner) runner = find(c.name());
    }
    if (!runner) fail<UsageError>("unknown name \"" + c.name() + "\"");
    run_modes(label, c, [&](bool single, RunMode mode, Report& report) { (single ? runner->float32 : runner->float64)(c, mode, report); });
  }
  void run_checkpoint(const std::string& label, const fs::path& path) {
    const Case c(path / "case.safetensors");
    const MappedFile text(path / "config.json");
    const auto bytes = text.bytes();
    // Non-finite numbers stand as bare tokens in some published files.
    const Json config = Json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "config.json", {.non_finite = true});
    const std::string type = config.named("config.json").at("model_type").as_string();
    const CheckpointFunction float32 = find_checkpoint(type, float()), float64 = find_checkpoint(type, double());
    if (float32 == nullptr) fail<UsageError>("config.json: unknown model_type \"" + type + "\"");
    run_modes(label, c, [&](bool single, RunMode mode, Report& report) {
      (single ? float32 : float64)(path, config, c, mode, report);
    });
  }
  template <class Run>
  void run_modes(const std::string& label, const Case& c, Run run) {
    for (const RunMode mode : c.modes()) {
      if (options_.list) {
        std::printf("%-40s %s\n", label.c_str(), std::string(to_string(mode)).c_str());
        continue;
      }
      for (const bool single : {true, false}) {
        if (!(single ? options_.float32 : options_.float64)) continue;
        Report report(c);
        try {
          run(single, mode, report);
          report.finish(mode);
        } catch (const std::exception& e) {
          report.fail_with(e.what());
        }
        std::string text;
        if (!report.where().empty()) {
          char number[32];
          std::snprintf(number, sizeof number, "%.2e", report.error());
          text = std::string(number) + " in " + report.where();
        }
        if (!report.messages().empty()) text += (text.empty() ? "" : "; ") + report.messages();
        record(label, to_string(mode), single ? "float32" : "float64", report.ok(), text);
      }
    }
  }

  const Options& options_;
  int passed_ = 0, failed_ = 0;
};

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(usage, stdout);
      return 0;
    }
    if (argument == "--list") {
      options.list = true;
    } else if (argument == "--dtype" || argument.starts_with("--dtype=")) {
      const std::string_view dtype = argument.size() > 7 ? argument.substr(8) : ++i < argc ? argv[i] : "";
      if (dtype != "float32" && dtype != "float64" && dtype != "both") {
        std::fprintf(stderr, "ordo_conformance: --dtype is float32, float64 or both\n");
        return 2;
      }
      options.float32 = dtype != "float64";
      options.float64 = dtype != "float32";
    } else if (argument.starts_with("-")) {
      std::fprintf(stderr, "ordo_conformance: unknown option %s\n%s", argv[i], usage);
      return 2;
    } else {
      options.paths.emplace_back(argument);
    }
  }
  if (options.paths.empty()) {
    std::fputs(usage, stderr);
    return 2;
  }
  Session session(options);
  for (const fs::path& path : options.paths) {
    std::vector<fs::path> cases;
    try {
      collect(path, cases);
      if (cases.empty()) fail<FileError>("no cases in this folder");
    } catch (const std::exception& e) {
      session.record(path.string(), "", "", false, e.what());
    }
    for (const fs::path& c : cases) session.run(c);
  }
  return session.finish() ? 0 : 1;
}

}  // namespace
}  // namespace conformance

int main(int argc, char** argv) { return conformance::run(argc, argv); }
