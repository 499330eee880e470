#include "../../examples/language_model/options.hpp"

#include "support.hpp"
#include "support/catch.hpp"

using namespace ordo_demo;
using demo_test::contains;
using demo_test::message_of;

namespace {

Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "language_model");
  const auto options = parse_options(static_cast<int>(arguments.size()), arguments.data());
  REQUIRE(options.has_value());
  return *options;
}

std::string refusal(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "language_model");
  return message_of<ordo::UsageError>(
      [&] { (void)parse_options(static_cast<int>(arguments.size()), arguments.data()); });
}

constexpr Mixer M = Mixer::mamba, S = Mixer::softmax;

}  // namespace

TEST_CASE("language model options: defaults are complete and possible") {
  const Options o = parse({});
  CHECK(o.text.empty());
  CHECK(o.pattern == std::vector<Mixer>(static_cast<std::size_t>(o.layers), M));
  CHECK(o.seconds > 0);
  CHECK(o.steps == 0);
  CHECK(o.dim % o.heads == 0);
  CHECK(o.given.empty());
  CHECK(estimated_bytes(o) < 2e9);  // the default runs on a small machine
}

TEST_CASE("language model options: every option reaches its field") {
  const Options o = parse({"--text",  "a.txt",
                           "--out=b", "--resume",
                           "c",       "--mixer",
                           "softmax", "--layers",
                           "6",       "--dim",
                           "96",      "--heads",
                           "3",       "--block",
                           "64",      "--batch",
                           "12",      "--seconds",
                           "7.5",     "--steps",
                           "2000",    "--threads",
                           "2",       "--seed",
                           "42",      "--learning-rate",
                           "1e-3",    "--warmup-steps",
                           "10",      "--weight-decay",
                           "0.05",    "--clip-norm",
                           "2",       "--evaluate-every",
                           "50",      "--prompt",
                           "Once",    "--tokens",
                           "99",      "--temperature",
                           "0",       "--top-k",
                           "5",       "--top-p",
                           "0.5"});
  CHECK(o.text == "a.txt");
  CHECK(o.out == "b");
  CHECK(o.resume == "c");
  CHECK(o.pattern == std::vector<Mixer>(6, S));
  CHECK(o.layers == 6);
  CHECK(o.dim == 96);
  CHECK(o.heads == 3);
  CHECK(o.block == 64);
  CHECK(o.batch == 12);
  CHECK(o.seconds == 7.5);
  CHECK(o.steps == 2000);
  CHECK(o.threads == 2);
  CHECK(o.seed == 42);
  CHECK(o.learning_rate == 1e-3);
  CHECK(o.warmup_steps == 10);
  CHECK(o.weight_decay == 0.05);
  CHECK(o.clip_norm == 2);
  CHECK(o.evaluate_every == 50);
  CHECK(o.prompt == "Once");
  CHECK(o.tokens == 99);
  CHECK(o.temperature == 0);
  CHECK(o.top_k == 5);
  CHECK(o.top_p == 0.5);
  CHECK(o.was_given("dim"));
  CHECK(o.was_given("out"));
  CHECK(o.given.size() == 23);
  CHECK_FALSE(parse({"--dim=64"}).was_given("heads"));
}

TEST_CASE("language model options: mixer patterns") {
  CHECK(parse({"--mixer=mamba,mamba,softmax"}).pattern == std::vector<Mixer>{M, M, S});
  CHECK(parse({"--mixer=mamba,mamba,softmax"}).layers == 3);
  CHECK(parse({"--mixer=mamba,softmax", "--layers=4"}).pattern == std::vector<Mixer>{M, S, M, S});
  CHECK(parse({"--mixer=softmax", "--layers=2"}).pattern == std::vector<Mixer>{S, S});

  CHECK(refusal({"--mixer=mamba,softmax", "--layers=5"}) ==
        "--layers must be a multiple of 2, the length of the --mixer pattern, not 5");
  CHECK(parse({"--mixer=lstm,gru,mamba,softmax"}).pattern == std::vector<Mixer>{Mixer::lstm, Mixer::gru, M, S});
  CHECK(refusal({"--mixer=rwkv"}) == "--mixer knows mamba, softmax, lstm and gru, not 'rwkv'");
  CHECK(refusal({"--mixer=mambo"}) == "--mixer knows mamba, softmax, lstm and gru, not 'mambo'; did you mean mamba?");
  CHECK(refusal({"--mixer=soft"}) == "--mixer knows mamba, softmax, lstm and gru, not 'soft'; did you mean softmax?");
  CHECK(refusal({"--mixer=Mamba"}) == "--mixer knows mamba, softmax, lstm and gru, not 'Mamba'; did you mean mamba?");
  for (const char* empty : {"--mixer=", "--mixer=,", "--mixer=mamba,", "--mixer=,mamba", "--mixer=mamba,,softmax"}) {
    CHECK(refusal({empty}) == "--mixer needs the name of a mixer before and after each comma");
  }
  std::string endless = "--mixer=mamba";
  for (int i = 0; i < 300; ++i) endless += ",mamba";
  CHECK(refusal({endless.c_str()}) == "--mixer names 301 blocks, and at most 256 are possible");
}

TEST_CASE("language model options: heads must divide the width where there are heads") {
  CHECK(refusal({"--mixer=softmax", "--dim=100", "--heads=3"}) ==
        "--dim must be a multiple of --heads, and 100 is no multiple of 3");
  CHECK(refusal({"--mixer=mamba,softmax", "--dim=36", "--heads=4"}) ==
        "--dim / --heads is the width of a head and must be even, and 36 / 4 is 9");
  CHECK(contains(refusal({"--mixer=softmax", "--dim=8", "--heads=16"}), "8 is no multiple of 16"));
  CHECK(parse({"--mixer=mamba", "--dim=100", "--heads=3"}).dim == 100);  // Mamba has none
}

TEST_CASE("language model options: the limits of a run") {
  CHECK(parse({"--steps=100"}).seconds == 0);
  CHECK(parse({"--steps=100", "--seconds=9"}).seconds == 9);
  CHECK(parse({"--seconds=9"}).steps == 0);
  CHECK(parse({"--steps=0"}).seconds > 0);
  CHECK(refusal({"--seconds=0"}) == "--steps and --seconds are both 0, so the training would never end");
  CHECK(refusal({"--seconds=0", "--steps=0"}) == "--steps and --seconds are both 0, so the training would never end");
}

TEST_CASE("language model options: absurd values are refused with their limit") {
  CHECK(refusal({"--layers=0"}) == "--layers must be from 1 to 256, not 0");
  CHECK(refusal({"--layers=1000000"}) == "--layers must be from 1 to 256, not 1000000");
  CHECK(refusal({"--dim=-1"}) == "--dim must be from 8 to 8192, not -1");
  CHECK(refusal({"--dim=99999999999999999999"}) == "--dim must be from 8 to 8192, not 99999999999999999999");
  CHECK(refusal({"--block=1"}) == "--block must be from 2 to 65536, not 1");
  CHECK(refusal({"--batch=0"}) == "--batch must be from 1 to 4096, not 0");
  CHECK(refusal({"--seconds=-3"}) == "--seconds must be from 0 to 604800, not -3");
  CHECK(refusal({"--threads=-1"}) == "--threads must be from 0 to 1024, not -1");
  CHECK(refusal({"--learning-rate=0"}) == "--learning-rate must be from 1e-07 to 1, not 0");
  CHECK(refusal({"--temperature=-0.5"}) == "--temperature must be from 0 to 100, not -0.5");
  CHECK(refusal({"--top-k=257"}) == "--top-k must be from 0 to 256, not 257");
  CHECK(refusal({"--top-p=0"}) == "--top-p must be from 0.001 to 1, not 0");
  CHECK(refusal({"--top-p=1.1"}) == "--top-p must be from 0.001 to 1, not 1.1");
  CHECK(refusal({"--learn-rate=1"}) == "unknown option '--learn-rate'; did you mean --learning-rate?");
  for (const char* empty : {"--text=", "--out=", "--resume="}) {
    CHECK(contains(refusal({empty}), " needs a name after it, not ''"));
  }
}

TEST_CASE("language model options: what cannot fit into the memory is refused before it is tried") {
  // Each size within its own limit, all of them together not.
  const std::string sentence =
      refusal({"--dim=8192", "--layers=256", "--batch=4096", "--block=65536", "--mixer=softmax", "--heads=64"});
  if (memory_bytes() > 0) CHECK(contains(sentence, "of memory to train and there are "));

  Options o;
  o.dim = 1024;
  o.layers = 12;
  o.mixer = "softmax";
  complete_options(o, 0);  // unknown memory refuses nothing
  // 12 blocks of 12 D^2 and an embedding of 256 D.
  CHECK(estimated_parameters(o) == 12.0 * 12 * 1024 * 1024 + 256.0 * 1024);
  CHECK(estimated_bytes(o) >= 16 * estimated_parameters(o));
  CHECK(message_of<ordo::UsageError>([&] {
          complete_options(o, 1'000'000'000);
        }).find("a model of this size needs about 3.") == 0);
  complete_options(o, 8'000'000'000);
}

TEST_CASE("language model options: help goes to the stream and ends the program") {
  std::FILE* out = std::tmpfile();
  REQUIRE(out != nullptr);
  const char* arguments[] = {"language_model", "--help"};
  CHECK_FALSE(parse_options(2, arguments, out).has_value());
  CHECK(std::ftell(out) > 1000);
  std::fclose(out);
}

TEST_CASE("machine: bytes as people write them") {
  CHECK(shown_bytes(0) == "0 bytes");
  CHECK(shown_bytes(999) == "999 bytes");
  CHECK(shown_bytes(1000) == "1.0 kB");
  CHECK(shown_bytes(9.94e3) == "9.9 kB");
  CHECK(shown_bytes(9.96e3) == "10 kB");
  CHECK(shown_bytes(999.9e6) == "1.0 GB");
  CHECK(shown_bytes(3.4e9) == "3.4 GB");
  CHECK(shown_bytes(1.7e19) == "17000 PB");
}
