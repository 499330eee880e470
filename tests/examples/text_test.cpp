#include "../../examples/support/text.hpp"

#include "../../examples/support/files.hpp"
#include "support.hpp"
#include "support/catch.hpp"

using namespace ordo_demo;
using demo_test::contains;
using demo_test::message_of;
using demo_test::read_file;
using demo_test::TemporaryFolder;

namespace {

std::string as_string(std::span<const std::uint8_t> bytes) { return std::string(bytes.begin(), bytes.end()); }

std::string refusal(const std::string& path) {
  return message_of<ordo::FileError>([&] { (void)load_text_file(path); });
}

}  // namespace

TEST_CASE("text: a file is read whole, byte for byte") {
  const TemporaryFolder folder;
  std::string contents;
  for (int i = 0; i < 30000; ++i) contents += "line " + std::to_string(i) + "\r\n\t h\u00e9 \x80\xff";
  const std::string path = folder.write("some text.txt", contents);
  const Text text = load_text(path);
  CHECK(as_string(text.bytes) == contents);
  CHECK(text.source == path);
  CHECK_FALSE(text.truncated);
}

TEST_CASE("text: the limit cuts, and says so only when something was cut") {
  const TemporaryFolder folder;
  const std::string path = folder.write("t", std::string(200000, 'x'));
  CHECK(load_text_file(path, 200000).bytes.size() == 200000);
  CHECK_FALSE(load_text_file(path, 200000).truncated);
  CHECK(load_text_file(path, 199999).bytes.size() == 199999);
  CHECK(load_text_file(path, 199999).truncated);
  CHECK(load_text_file(path, 2).bytes.size() == 2);
  CHECK_FALSE(load_text_file(path, 300000).truncated);
}

TEST_CASE("text: what cannot be used gets one sentence") {
  const TemporaryFolder folder;
  const auto sentence = [](const std::string& path, const std::string& why) {
    return "cannot use the text " + in_quotes(path) + ": " + why;
  };
  const std::string missing = folder / "missing", empty = folder.write("empty", ""), one = folder.write("one", "x");
  CHECK(refusal(missing) == sentence(missing, "there is no such file"));
  CHECK(refusal(one + "/below") == sentence(one + "/below", "there is no such file"));
  CHECK(refusal(folder.path().string()) == sentence(folder.path().string(), "it is a folder, not a file"));
  CHECK(refusal(empty) == sentence(empty, "the file is empty"));
  CHECK(refusal(one) == sentence(one, "it has a single byte, so there is nothing to predict"));
  CHECK(as_string(load_text(folder.write("two", "xy")).bytes) == "xy");
  CHECK(contains(refusal(std::string(5000, 'x')), "cannot use the text 'xxx"));
  CHECK(contains(refusal("no\nsuch"), "'no\\x0asuch'"));

  const std::string locked = folder.write("locked", "secret text");
  std::filesystem::permissions(locked, std::filesystem::perms::none);
  if (std::FILE* readable = std::fopen(locked.c_str(), "rb")) {
    std::fclose(readable);  // root reads everything
  } else {
    CHECK(contains(refusal(locked), "cannot read the text " + in_quotes(locked) + ": "));
  }
}

TEST_CASE("text: binary files are told from text") {
  const TemporaryFolder folder;
  const auto why = [](const std::string& s) {
    return why_not_text({reinterpret_cast<const std::uint8_t*>(s.data()), s.size()});
  };
  using namespace std::string_literals;
  CHECK(why("plain\ttext\r\n\f\x1b[31mred\x1b[0m").empty());
  CHECK(why("caf\xc3\xa9 and caf\xe9").empty());  // UTF-8, Latin-1
  CHECK(why("\xef\xbb\xbfwith a mark").empty());
  CHECK(why("abc\0def"s) == "it is a binary file (a zero byte at position 3)");
  CHECK(why("\xff\xfe"
            "a\0b\0"s) == "it is UTF-16; convert it to UTF-8");
  CHECK(why("\xfe\xff\0a"s) == "it is UTF-16; convert it to UTF-8");
  CHECK(why(std::string(1000, 'x') + "\x01\x02").empty());  // a stray one
  CHECK(contains(why(std::string(50, 'x') + "\x01\x02"), "binary file"));
  CHECK(contains(refusal(folder.write("bin",
                                      "\x7f"
                                      "ELF\x02\x01\x01\0\0\0"s)),
                 "it is a binary file"));
}

TEST_CASE("text: the default is the headers below Eigen in the order of their paths") {
  const TemporaryFolder folder;
  folder.write("eigen3/Eigen/Core", "core;");
  folder.write("eigen3/Eigen/src/b.h", "b;");
  folder.write("eigen3/Eigen/src/a/z.h", "z;");
  folder.write("eigen3/Eigen/Zeta", "zeta;");
  folder.write("eigen3/unsupported/x.h", "not this");
  const std::string eigen = folder / "eigen3";
  const Text text = load_default_text(1000, {folder / "nowhere", eigen});
  // '/' sorts below letters, capitals below small ones.
  CHECK(as_string(text.bytes) == "core;zeta;z;b;");
  CHECK(contains(text.source, "4 headers of Eigen in "));
  CHECK_FALSE(text.truncated);

  const Text cut = load_default_text(7, {eigen});
  CHECK(as_string(cut.bytes) == "core;ze");
  CHECK(cut.truncated);
  const Text at_edge = load_default_text(10, {eigen});
  CHECK(as_string(at_edge.bytes) == "core;zeta;");
  CHECK(at_edge.truncated);
  CHECK_FALSE(load_default_text(14, {eigen}).truncated);

  const std::string nothing = message_of<ordo::FileError>([&] { (void)load_default_text(9, {"/no/a", "/no/b"}); });
  CHECK(nothing ==
        "there is no default text, because the headers of Eigen are not in any of /no/a, /no/b; "
        "name a text with --text FILE");
}

TEST_CASE("text: the last tenth is held out") {
  Text text;
  text.source = "t.txt";
  for (int i = 0; i < 1000; ++i) text.bytes.push_back(static_cast<std::uint8_t>(i % 251));
  const TextSplit split = split_text(text, 64);
  CHECK(split.training.size() == 900);
  CHECK(split.held_out.size() == 100);
  CHECK(split.training.data() == text.bytes.data());
  CHECK(split.held_out.data() == text.bytes.data() + 900);

  text.bytes.resize(1115394, 1);  // the length of tiny Shakespeare, whose customary split this is
  CHECK(split_text(text, 64).training.size() == 1003854);
}

TEST_CASE("text: both parts hold a block and the byte after it, or the text is too short") {
  Text text;
  text.source = "t.txt";
  text.bytes.assign(650, 'x');
  CHECK(split_text(text, 64).held_out.size() == 65);
  text.bytes.assign(640, 'x');
  CHECK(message_of<ordo::FileError>([&] { (void)split_text(text, 64); }) ==
        "the text 't.txt' is too short: it has 640 bytes, and blocks of 64 need about 650 (a tenth is held out)");
  text.bytes.assign(2, 'x');
  CHECK_THROWS_AS(split_text(text, 1), ordo::FileError);
}

TEST_CASE("text: fingerprints differ where texts do") {
  const std::vector<std::uint8_t> a{'a'}, foobar{'f', 'o', 'o', 'b', 'a', 'r'};
  CHECK(fingerprint({}) == 0xcbf29ce484222325u);  // published values of FNV-1a
  CHECK(fingerprint(a) == 0xaf63dc4c8601ec8cu);
  CHECK(fingerprint(foobar) == 0x85944171f73967e8u);
}

TEST_CASE("files: a file is replaced as a whole") {
  const TemporaryFolder folder;
  const std::string path = folder / "result.txt";
  write_file(path, "first version");
  write_file(path, "second");
  CHECK(read_file(path) == "second");
  write_file(path, "");
  CHECK(read_file(path).empty());
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) files += entry.is_regular_file() ? 1 : 0;
  CHECK(files == 1);  // nothing temporary is left

  const std::string nowhere = folder / "no/such/folder/x";
  CHECK(contains(message_of<ordo::FileError>([&] { write_file(nowhere, "x"); }),
                 "cannot write " + in_quotes(nowhere) + ": "));
  std::filesystem::create_directory(folder.path() / "taken");
  folder.write("taken/inside", "x");
  CHECK(contains(message_of<ordo::FileError>([&] { write_file(folder / "taken", "x"); }), "cannot write "));
  CHECK_FALSE(std::filesystem::exists(folder / "taken.new"));
}

TEST_CASE("files: a folder for results is made, or refused before the work") {
  const TemporaryFolder folder;
  prepare_folder(folder / "a/b/c");
  CHECK(std::filesystem::is_directory(folder / "a/b/c"));
  CHECK(std::filesystem::is_empty(folder / "a/b/c"));
  prepare_folder(folder / "a/b/c");  // again is no error
  const std::string file = folder.write("file", "x");
  for (const std::string& bad : {file, file + "/below", std::string()}) {
    CHECK(contains(message_of<ordo::FileError>([&] { prepare_folder(bad); }),
                   "cannot use " + in_quotes(bad) + " as a folder for results: "));
  }
  CHECK(read_file(file) == "x");
}
