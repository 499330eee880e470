#include "../../examples/support/svg.hpp"

#include <cctype>
#include <limits>

#include "support.hpp"
#include "support/catch.hpp"

using namespace ordo_demo;
using demo_test::contains;
using demo_test::message_of;
using demo_test::read_file;
using demo_test::TemporaryFolder;
using Points = std::vector<CurvePoint>;

namespace {

constexpr double no_number = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

/// Whether tags nest, quotes pair, and what stands between tags has neither < nor a bare &.
bool well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (std::size_t i = 0; i < xml.size(); ++i) {
    if (xml[i] == '&') {
      const std::size_t end = xml.find(';', i);
      if (end == std::string::npos || end - i > 6) return false;
    }
    if (xml[i] == '>') return false;  // outside a tag
    if (xml[i] != '<') continue;
    std::size_t end = i + 1;
    for (bool quote = false; end < xml.size() && (quote || xml[end] != '>'); ++end) {
      if (xml[end] == '"') quote = !quote;
      if (xml[end] == '<') return false;
    }
    if (end == xml.size()) return false;
    const std::string tag = xml.substr(i + 1, end - i - 1);
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    }
    i = end;
  }
  return open.empty();
}

void check_drawing(const std::string& svg) {
  CHECK(svg.starts_with("<svg "));
  CHECK(well_formed(svg));
  std::string lower;
  for (const char c : svg) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* bad : {"\"nan", "\"-nan", "\"inf", "\"-inf", ">nan", ">inf", " nan,", ",nan", ",inf", ",-inf"}) {
    CHECK_FALSE(contains(lower, bad));
  }
}

LossCurve typical(int steps) {
  LossCurve curve;
  curve.title = "Mamba on C++";
  for (int i = 1; i <= steps; ++i) {
    const double noise = 0.1 * ((i % 1000 * 7919) % 101 / 50.0 - 1);
    curve.training.push_back({static_cast<double>(i), 1.5 + 6.5 * std::exp(-i / (0.05 * steps)) + noise});
  }
  for (int k = 1; k <= 5; ++k) curve.held_out.push_back({k * steps / 5.0, 1.6 + 1.0 / k});
  curve.lines.push_back({"n-gram of order 4", 2.0});
  return curve;
}

}  // namespace

TEST_CASE("svg: ticks are round numbers inside the range") {
  const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) < 1e-9);
  };
  near(svg_detail::ticks(0, 10, 5), {0, 2, 4, 6, 8, 10});
  near(svg_detail::ticks(1.37, 3.61, 5), {1.5, 2, 2.5, 3, 3.5});
  near(svg_detail::ticks(0, 2400, 5), {0, 500, 1000, 1500, 2000});
  near(svg_detail::ticks(-1, 1, 4), {-1, -0.5, 0, 0.5, 1});
  near(svg_detail::ticks(5, 5, 4), {5});
  for (double high = 1e-6; high < 1e12; high *= 1.37) {
    const auto ticks = svg_detail::ticks(0, high, 5);
    CHECK(ticks.size() >= 2);
    CHECK(ticks.size() <= 8);
    CHECK(ticks.back() <= high * (1 + 1e-9));
  }
}

TEST_CASE("svg: figures") {
  CHECK(svg_detail::number(0) == "0");
  CHECK(svg_detail::number(-0.0) == "0");
  CHECK(svg_detail::number(2) == "2");
  CHECK(svg_detail::number(2.50) == "2.5");
  CHECK(svg_detail::number(1.7063) == "1.7063");
  CHECK(svg_detail::number(999) == "999");
  CHECK(svg_detail::number(1000) == "1,000");
  CHECK(svg_detail::number(1234567.5) == "1,234,567.5");
  CHECK(svg_detail::number(-1000) == "-1,000");
  CHECK(svg_detail::number(-999) == "-999");
}

TEST_CASE("svg: smoothing keeps constants, lines and the first point") {
  Points line;
  for (int i = 0; i < 100; ++i) line.push_back({static_cast<double>(i), 3.0 - 0.01 * i});
  const Points smooth = svg_detail::smoothed(line, 5);
  REQUIRE(smooth.size() == line.size());
  for (std::size_t i = 0; i + 5 < smooth.size(); ++i) CHECK(std::abs(smooth[i].y - line[i].y) < 1e-12);
  CHECK(smooth.back().x == 99);
  CHECK(std::abs(smooth.back().y - (3.0 - 0.01 * 96.5)) < 1e-12);  // of the last six: 94 .. 99
  CHECK(svg_detail::smoothed({}, 5).empty());
  CHECK(svg_detail::smoothed({{1, 2}}, 5).size() == 1);
}

TEST_CASE("svg: thinning keeps the order and the extremes") {
  Points points;
  for (int i = 0; i < 100000; ++i) points.push_back({static_cast<double>(i), static_cast<double>((i * 7919) % 1000)});
  points[31234].y = 5000;
  points[71234].y = -5000;
  const Points thin = svg_detail::thinned(points, 300);
  CHECK(thin.size() <= 600);
  double low = inf, high = -inf;
  for (std::size_t i = 0; i < thin.size(); ++i) {
    if (i > 0) REQUIRE(thin[i - 1].x < thin[i].x);
    low = std::min(low, thin[i].y);
    high = std::max(high, thin[i].y);
  }
  CHECK(low == -5000);
  CHECK(high == 5000);
  CHECK(svg_detail::thinned(Points(600, {1, 1}), 300).size() == 600);
  CHECK(svg_detail::thinned(Points(601, {1, 1}), 300).size() == 300);  // a flat bucket needs one point
}

TEST_CASE("svg: a typical curve has everything that was asked for") {
  const std::string svg = loss_curve_svg(typical(1000));
  check_drawing(svg);
  CHECK(contains(svg, "Mamba on C++"));
  CHECK(contains(svg, ">training steps<"));
  CHECK(contains(svg, ">bits per byte<"));
  CHECK(contains(svg, ">n-gram of order 4 2<"));
  CHECK(contains(svg, ">held out, last 1.8<"));
  CHECK(contains(svg, ">training, moving mean<"));
  CHECK(contains(svg, ">starts at 7.9<"));  // the first steps leave the frame
  CHECK(occurrences(svg, "<polyline") == 2);
  CHECK(occurrences(svg, "stroke-dasharray") == 1);
  CHECK(occurrences(svg, "<circle") == 5 + 1);  // the points that are inside, and the legend's
}

TEST_CASE("svg: the file stays small however long the run was") {
  const std::string svg = loss_curve_svg(typical(300000));
  check_drawing(svg);
  CHECK(svg.size() < 60000);
}

TEST_CASE("svg: nothing, little and strange data still give a drawing") {
  std::vector<LossCurve> curves(9);
  curves[1].training = {{1, 3}};
  curves[2].training = {{1, 3}, {2, 3}, {3, 3}};
  curves[3].training = {{1, no_number}, {2, inf}, {3, -inf}, {no_number, 1}};
  curves[3].held_out = {{1, no_number}};
  curves[3].lines = {{"infinite", inf}, {"no number", no_number}};
  curves[4].training = {{1, no_number}, {2, 2}, {3, no_number}, {4, 1}};
  curves[5].held_out = {{5, 2}};
  curves[6].lines = {{"alone", 0}};
  curves[7].training = {{0, 1e300}, {1e300, -1e300}};
  curves[8].training = {{1e9, 1e-12}, {1e9 + 1, 2e-12}};
  curves[8].title = std::string(2000, 'W');
  for (std::size_t i = 0; i < curves.size(); ++i) {
    CAPTURE(i);
    check_drawing(loss_curve_svg(curves[i]));
  }
  CHECK(occurrences(loss_curve_svg(curves[1]), "<circle") == 2);  // one point shows, faint and bold
}

TEST_CASE("svg: texts from outside are escaped") {
  LossCurve curve = typical(10);
  curve.title = "a < b & \"c\" > d\x01";
  curve.lines[0].label = "</text><script>";
  const std::string svg = loss_curve_svg(curve);
  check_drawing(svg);
  CHECK(contains(svg, "a &lt; b &amp; &quot;c&quot; &gt; d<"));
  CHECK_FALSE(contains(svg, "<script>"));
}

TEST_CASE("svg: close lines have their labels on different sides") {
  LossCurve curve = typical(100);
  curve.lines = {{"low", 2.0}, {"high", 2.02}};
  const std::string svg = loss_curve_svg(curve);
  const auto y_of = [&](const std::string& label) {
    const std::size_t text = svg.rfind("<text", svg.find(">" + label));
    const std::size_t y = svg.find("y=\"", text) + 3;
    return std::stod(svg.substr(y));
  };
  CHECK(y_of("low 2<") - y_of("high 2.02<") > 20);
}

TEST_CASE("svg: written to a file, or an error with its name") {
  const TemporaryFolder folder;
  const LossCurve curve = typical(50);
  write_loss_curve(folder / "loss.svg", curve);
  CHECK(read_file(folder / "loss.svg") == loss_curve_svg(curve));
  CHECK(contains(message_of<ordo::FileError>([&] { write_loss_curve(folder / "no/loss.svg", curve); }),
                 "cannot write '"));
}
