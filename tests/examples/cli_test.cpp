#include "../../examples/support/cli.hpp"

#include <limits>

#include "support.hpp"
#include "support/catch.hpp"

using namespace ordo_demo;
using demo_test::contains;
using demo_test::message_of;

namespace {

struct Program {
  std::string name = "nobody";
  int count = 3;
  std::uint64_t seed = 1;
  double rate = 0.25;
  float share = 0.5f;
  bool loud = false;
  CommandLine line{"greet", "Greets people."};

  Program() {
    line.group("What");
    line.option("name", "NAME", name, "whom to greet");
    line.option("count", "N", count, -5, 100, "how often");
    line.option("rate", "R", rate, 0, 1e3, "how fast");
    line.group("Rest");
    line.option("share", "R", share, 0, 1, "how much");
    line.option("seed", "N", seed, 0, std::numeric_limits<std::uint64_t>::max(), "of the names");
    line.flag("loud", loud, "shout");
  }
  bool parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "greet");
    return line.parse(static_cast<int>(arguments.size()), arguments.data());
  }
};

/// The sentence with which a command line is refused.
std::string refusal(std::vector<const char*> arguments) {
  Program program;
  return message_of<ordo::UsageError>([&] { (void)program.parse(arguments); });
}

}  // namespace

TEST_CASE("cli: both forms of options, flags, and what was given") {
  Program p;
  REQUIRE(p.parse(
      {"--name", "Ada", "--count=-4", "--rate", "1e-3", "--loud", "--share=.75", "--seed", "18446744073709551615"}));
  CHECK(p.name == "Ada");
  CHECK(p.count == -4);
  CHECK(p.rate == 1e-3);
  CHECK(p.share == 0.75f);
  CHECK(p.seed == std::numeric_limits<std::uint64_t>::max());
  CHECK(p.loud);
  CHECK(p.line.given("count"));

  Program q;
  REQUIRE(q.parse({"--rate=2"}));
  CHECK(q.name == "nobody");  // what it held stays
  CHECK(q.count == 3);
  CHECK(q.line.given("rate"));
  CHECK_FALSE(q.line.given("count"));
  CHECK_THROWS_AS(q.line.given("no-such-option"), ordo::UsageError);

  Program none;
  CHECK(none.parse({}));
  CHECK(CommandLine("x", "y").parse(0, nullptr));
}

TEST_CASE("cli: values that look like something else") {
  Program p;
  REQUIRE(p.parse({"--name", "-- hello", "--count", "-5"}));
  CHECK(p.name == "-- hello");
  CHECK(p.count == -5);
  REQUIRE(p.parse({"--name=--count"}));
  CHECK(p.name == "--count");
  REQUIRE(p.parse({"--name", "a=b", "--name=", "--name=x=y"}));  // the last one counts
  CHECK(p.name == "x=y");
  REQUIRE(p.parse({"--name="}));
  CHECK(p.name.empty());
}

TEST_CASE("cli: a wrong command line gives one sentence") {
  CHECK(refusal({"--nmae", "x"}) == "unknown option '--nmae'; did you mean --name?");
  CHECK(refusal({"--coun=3"}) == "unknown option '--coun'; did you mean --count?");
  CHECK(refusal({"-count", "3"}) == "unknown option '-count'; did you mean --count?");
  CHECK(refusal({"--hepl"}) == "unknown option '--hepl'; did you mean --help?");
  CHECK(refusal({"--help=yes"}) == "--help takes no value");
  CHECK(refusal({"--quite-different"}) == "unknown option '--quite-different'; --help lists the options");
  CHECK(refusal({"word"}) == "unexpected argument 'word'; every option starts with --");
  CHECK(refusal({""}) == "unexpected argument ''; every option starts with --");
  CHECK(refusal({"--"}) == "unexpected argument '--'; every option starts with --");
  CHECK(refusal({"-5"}) == "unexpected argument '-5'; every option starts with --");
  CHECK(refusal({"--loud=yes"}) == "--loud takes no value");
  CHECK(refusal({"--name"}) == "--name needs a value: NAME");
  CHECK(refusal({"--count"}) == "--count needs a value: a whole number from -5 to 100");
  CHECK(refusal({"--count", "--rate", "1"}) == "--count needs a value: a whole number from -5 to 100");
  CHECK(refusal({"--rate"}) == "--rate needs a value: a number from 0 to 1000");
}

TEST_CASE("cli: numbers are read whole or not at all") {
  for (const char* bad : {"", "x", "3x", "3.5", " 3", "3 ", "+3", "0x10", "1e1", "--3", "three"}) {
    CAPTURE(bad);
    CHECK(contains(refusal({"--count", bad}), "--count needs a whole number from -5 to 100, not '"));
  }
  for (const char* far : {"-6", "101", "2147483648", "-99999999999999999999", "99999999999999999999999999"}) {
    CHECK(refusal({"--count", far}) == "--count must be from -5 to 100, not " + std::string(far));
  }
  for (const char* bad :
       {"", "x", "1.5x", " 1", "nan", "inf", "infinity", "0x1p3", "1,5", ".", "-", "e5", "1e", "1..2"}) {
    CAPTURE(bad);
    CHECK(contains(refusal({"--rate", bad}), "--rate needs a number from 0 to 1000, not '"));
  }
  for (const char* far : {"-1e-9", "1000.5", "1e400", "-1e400"}) {
    CHECK(refusal({"--rate", far}) == "--rate must be from 0 to 1000, not " + std::string(far));
  }
  CHECK(contains(refusal({"--seed", "-1"}), "--seed needs a whole number from 0 to 18446744073709551615, not '-1'"));
  CHECK(refusal({"--seed", "18446744073709551616"}) ==
        "--seed must be from 0 to 18446744073709551615, not 18446744073709551616");
  for (const char* good : {"0", "1000", "1e3", "-0", "5.", ".5", "1E2", "+1"}) {
    CAPTURE(good);
    Program p;
    CHECK(p.parse({"--rate", good}));
  }
}

TEST_CASE("cli: what came from outside cannot break the sentence") {
  CHECK(in_quotes("a\nb\x1b[31m\x7f") == "'a\\x0ab\\x1b[31m\\x7f'");
  CHECK(in_quotes("h\u00e9") == "'h\u00e9'");
  const std::string longest = in_quotes(std::string(1000, 'x'));
  CHECK(longest == "'" + std::string(60, 'x') + "...'");
  const std::string all_x(5000, 'x'), all_digits(5000, '9');
  CHECK(refusal({("--" + all_x).c_str()}).size() < 150);
  CHECK(refusal({"--count", all_x.c_str()}).size() < 150);
  CHECK(refusal({"--count", all_digits.c_str()}).size() < 150);
}

TEST_CASE("cli: help follows from the table") {
  Program p;
  CHECK_FALSE(p.parse({"--help"}));
  CHECK_FALSE(p.parse({"-h"}));
  CHECK_FALSE(p.parse({"--count", "nonsense", "--help"}));  // asking for help always gives it
  p.line.footer("The end.");
  const std::string help = p.line.help();
  CHECK(contains(help, "usage: greet [options]"));
  CHECK(contains(help, "Greets people."));
  CHECK(contains(help, "\nWhat\n"));
  CHECK(contains(help, "  --name NAME  whom to greet (default nobody)\n"));
  CHECK(contains(help, "  --count N    how often (default 3)\n"));
  CHECK(contains(help, "  --rate R     how fast (default 0.25)\n"));
  CHECK(contains(help, "  --loud       shout\n"));
  CHECK(contains(help, "-h, --help"));
  CHECK(contains(help, "The end.\n"));
  for (const int columns : {1, 50, 80, 200}) {
    std::size_t longest = 0, at = 0;
    const std::string wrapped = p.line.help(columns);
    for (std::size_t end; (end = wrapped.find('\n', at)) != std::string::npos; at = end + 1)
      longest = std::max(longest, end - at);
    CHECK(longest <= static_cast<std::size_t>(std::max(columns, 40)));
  }
}

TEST_CASE("cli: distances and suggestions") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("layers", "laeyrs") == 1);  // neighbours swapped
  CHECK(edit_distance("ab", "ba") == 1);
  const std::vector<std::string> names{"temperature", "text", "top-k", "top-p", "tokens"};
  CHECK(closest("temp", names) == "temperature");
  CHECK(closest("top", names).empty());  // starts two
  CHECK(closest("tpo-k", names) == "top-k");
  CHECK(closest("token", names) == "tokens");
  CHECK(closest("zzz", names).empty());
  CHECK(closest("", names).empty());
}

TEST_CASE("cli: run_program turns exceptions into exit code 2") {
  CHECK(run_program("demo", [] { return 0; }) == 0);
  CHECK(run_program("demo", [] { return 7; }) == 7);
  CHECK(run_program("demo", []() -> int { ordo::fail<ordo::UsageError>("(expected on stderr by this test)"); }) == 2);
  CHECK(run_program("demo", []() -> int { throw std::bad_alloc(); }) == 2);
}
