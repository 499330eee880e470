#pragma once
/// \file
/// A loss curve as an SVG file that reads on a phone and on paper.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "files.hpp"

namespace ordo_demo {

struct CurvePoint {
  double x, y;
};

/// What a loss curve shows. Points are in the order of x; those that are not finite are left out.
struct LossCurve {
  std::string title, x_label = "training steps", y_label = "bits per byte";
  std::vector<CurvePoint> training;  ///< one a step: drawn faint, with its moving average on top
  std::vector<CurvePoint> held_out;  ///< drawn as marks
  struct Line {
    std::string label;
    double y;
  };
  std::vector<Line> lines;  ///< horizontal, each labelled: what is to be beaten
};

namespace svg_detail {

inline std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 32 || c == '\t' || c == '\n')
      out += c;  // others are not legal in XML
  }
  return out;
}

/// With a comma every three digits, at most 4 decimals and no zeros at their end.
inline std::string number(double value) {
  if (std::abs(value) < 5e-5) return "0";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.4f", value);
  std::string text = buffer;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  const std::size_t end = std::min(text.find('.'), text.size()), start = text[0] == '-' ? 1 : 0;
  for (std::size_t at = end; at > start + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

/// Multiples of 1, 2 or 5 times a power of ten inside [low, high], about `wanted` of them.
inline std::vector<double> ticks(double low, double high, int wanted) {
  const double rough = (high - low) / std::max(wanted, 1);
  if (!(rough > 0) || !std::isfinite(rough)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5, 2, 1}) {
    if (rough <= 1.001 * factor * power) step = factor * power;
  }
  std::vector<double> out;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) out.push_back(i * step);
  return out;
}

inline std::vector<CurvePoint> finite(const std::vector<CurvePoint>& points) {
  std::vector<CurvePoint> out;
  for (const CurvePoint& p : points) {
    if (std::isfinite(p.x) && std::isfinite(p.y)) out.push_back(p);
  }
  return out;
}

/// Each point's mean over the points around it, at most `radius` on each side: the curve keeps its place, where a
/// running average lags. Near the start as many on both sides, so that the steep fall stays; near the end those that
/// there are.
inline std::vector<CurvePoint> smoothed(const std::vector<CurvePoint>& points, std::size_t radius) {
  std::vector<double> sums{0};
  for (const CurvePoint& p : points) sums.push_back(sums.back() + p.y);
  std::vector<CurvePoint> out;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t begin = i - std::min(radius, i), end = std::min(i + (i - begin), points.size() - 1) + 1;
    out.push_back({points[i].x, (sums[end] - sums[begin]) / static_cast<double>(end - begin)});
  }
  return out;
}

/// At most `buckets` lowest and as many highest points, in order: a long noisy run stays a small file and looks the
/// same.
inline std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points, std::size_t buckets) {
  if (points.size() <= 2 * buckets) return points;
  std::vector<CurvePoint> out;
  for (std::size_t b = 0; b < buckets; ++b) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(b * points.size() / buckets);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>((b + 1) * points.size() / buckets);
    const auto [low, high] =
        std::minmax_element(begin, end, [](const CurvePoint& p, const CurvePoint& q) { return p.y < q.y; });
    out.push_back(low < high ? *low : *high);
    if (low->y < high->y) out.push_back(low < high ? *high : *low);
  }
  return out;
}

/// The y that a share of the values does not exceed.
inline double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

/// What the picture shows of the plane.
struct Frame {
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low, y_low = x_low, y_high = -x_low;
};

/// The first steps fall from far above everything that matters: they may leave the frame at the top, as may the first
/// held-out point, which can be that of the untrained model.
inline Frame frame_of(const std::vector<CurvePoint>& training, const std::vector<CurvePoint>& held_out,
                      const std::vector<LossCurve::Line>& lines) {
  Frame f;
  for (const auto* points : {&training, &held_out}) {
    for (const CurvePoint& p : *points) {
      f.x_low = std::min(f.x_low, p.x);
      f.x_high = std::max(f.x_high, p.x);
    }
  }
  const auto include = [&f](double y) {
    f.y_low = std::min(f.y_low, y);
    f.y_high = std::max(f.y_high, y);
  };
  std::vector<double> late;
  for (std::size_t i = training.size() / 20; i < training.size(); ++i) late.push_back(training[i].y);
  if (!late.empty()) {
    include(quantile(late, 0.002));
    include(quantile(late, 0.998));
  }
  for (const LossCurve::Line& line : lines) include(line.y);
  for (std::size_t i = held_out.size() > 1 ? 1 : 0; i < held_out.size(); ++i) include(held_out[i].y);

  if (!(f.x_low <= f.x_high)) f.x_low = 0, f.x_high = 1;
  if (!(f.y_low <= f.y_high)) f.y_low = 0, f.y_high = 1;
  if (f.x_low > 0 && f.x_low < 0.1 * f.x_high) f.x_low = 0;
  if (f.x_low == f.x_high) f.x_low -= 1, f.x_high += 1;
  const double spread = std::max({f.y_high - f.y_low, 1e-3 * std::abs(f.y_high), 1e-6});
  f.y_low -= 0.06 * spread;
  f.y_high += 0.1 * spread;
  return f;
}

/// Grows a text by formatted pieces.
class Writer {
 public:
  template <class... Args>
  void add(const char* format, Args... args) {
    std::array<char, 512> buffer;
    const int n = std::snprintf(buffer.data(), buffer.size(), format, args...);
    text_.append(buffer.data(), static_cast<std::size_t>(std::clamp(n, 0, static_cast<int>(buffer.size()) - 1)));
  }
  void raw(std::string_view text) { text_ += text; }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    add("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style);
  }
  void circle(double x, double y, double r, const char* style) {
    add("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" %s/>\n", x, y, r, style);
  }
  void text(double x, double y, const char* anchor, std::string_view words, const char* style = "") {
    add("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>", x, y, anchor, style);
    raw(escaped(words));
    raw("</text>\n");
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace svg_detail

/// The drawing as the text of an SVG file.
inline std::string loss_curve_svg(const LossCurve& curve) {
  using namespace svg_detail;
  constexpr double width = 640, height = 480, left = 84, right = 616, top = 84, bottom = 406;
  constexpr const char* faint = "stroke=\"#0060a8\" stroke-opacity=\"0.25\" stroke-width=\"1\"";
  constexpr const char* faint_key = "stroke=\"#0060a8\" stroke-opacity=\"0.25\" stroke-width=\"10\"";
  constexpr const char* bold = "stroke=\"#0060a8\" stroke-width=\"2.8\"";
  constexpr const char* mark = "fill=\"white\" stroke=\"#c84e00\" stroke-width=\"2.6\"";
  constexpr const char* dashed = "stroke=\"#222222\" stroke-width=\"2\" stroke-dasharray=\"9 6\"";
  constexpr const char* axis = "stroke=\"#222222\" stroke-width=\"1.5\"";
  // A white outline keeps a label readable where it crosses a curve.
  constexpr const char* halo = "stroke=\"white\" stroke-width=\"5\" stroke-linejoin=\"round\" paint-order=\"stroke\"";

  const std::vector<CurvePoint> training = finite(curve.training), held_out = finite(curve.held_out);
  const std::vector<CurvePoint> mean = smoothed(training, std::max<std::size_t>(2, training.size() / 60));
  std::vector<LossCurve::Line> lines;
  std::copy_if(curve.lines.begin(), curve.lines.end(), std::back_inserter(lines),
               [](const LossCurve::Line& line) { return std::isfinite(line.y); });
  std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) { return a.y > b.y; });
  const Frame f = frame_of(training, held_out, lines);
  const auto px = [&f](double x) { return left + (x - f.x_low) / (f.x_high - f.x_low) * (right - left); };
  const auto py = [&f](double y) {
    return std::clamp(bottom - (y - f.y_low) / (f.y_high - f.y_low) * (bottom - top), -1e5, 1e5);
  };
  const auto three_decimals = [](double y) { return number(std::round(y * 1000) / 1000); };

  Writer svg;
  svg.add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" role=\"img\" ",
          width, height, width, height);
  svg.raw("font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"17\" fill=\"#222222\">\n<title>");
  svg.raw(escaped(curve.title));
  svg.add("</title>\n<rect width=\"%g\" height=\"%g\" fill=\"white\"/>\n", width, height);
  svg.add("<clipPath id=\"plot\"><rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/></clipPath>\n", left, top,
          right - left, bottom - top);
  char title_style[64];  // a long title is set smaller
  std::snprintf(title_style, sizeof title_style, "font-weight=\"bold\" font-size=\"%.1f\"",
                std::clamp(920 / (static_cast<double>(curve.title.size()) + 1), 8.0, 20.0));
  svg.text(16, 32, "start", curve.title, title_style);

  // Axes: a grid line and a figure at each tick of y, a tick and a figure for x.
  for (const double y : ticks(f.y_low, f.y_high, 6)) {
    svg.line(left, py(y), right, py(y), "stroke=\"#dddddd\"");
    svg.text(left - 10, py(y) + 6, "end", number(y));
  }
  for (const double x : ticks(f.x_low, f.x_high, 5)) {
    svg.line(px(x), bottom, px(x), bottom + 6, axis);
    const std::string figure = number(x);
    const double half = 5.5 * static_cast<double>(figure.size());
    svg.text(std::min(px(x), width - 8 - half), bottom + 26, "middle", figure);
  }
  svg.line(left, top, left, bottom, axis);
  svg.line(left, bottom, right, bottom, axis);
  svg.text((left + right) / 2, height - 18, "middle", curve.x_label);
  svg.add("<g transform=\"translate(22 %g) rotate(-90)\">", (top + bottom) / 2);
  svg.text(0, 0, "middle", curve.y_label);
  svg.raw("</g>\n");

  const auto polyline = [&](const std::vector<CurvePoint>& points, const char* style) {
    if (points.size() == 1) svg.circle(px(points[0].x), py(points[0].y), 4, "fill=\"#0060a8\"");
    if (points.size() < 2) return;
    svg.add("<polyline fill=\"none\" stroke-linejoin=\"round\" %s points=\"", style);
    for (const CurvePoint& p : points) svg.add("%.1f,%.1f ", px(p.x), py(p.y));
    svg.raw("\"/>\n");
  };
  svg.raw("<g clip-path=\"url(#plot)\">\n");
  polyline(thinned(training, 600), faint);
  polyline(thinned(mean, 300), bold);
  svg.raw("</g>\n");
  for (const LossCurve::Line& line : lines) svg.line(left, py(line.y), right, py(line.y), dashed);
  for (const CurvePoint& p : held_out) {
    if (p.y <= f.y_high) svg.circle(px(p.x), py(p.y), 4.8, mark);
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {  // above its line, or below when the line before is close above
    const double y = py(lines[i].y);
    const bool below = i > 0 && y - py(lines[i - 1].y) < 30;
    svg.text(right - 4, below ? y + 20 : y - 8, "end", lines[i].label + " " + three_decimals(lines[i].y), halo);
  }
  const auto inside = std::find_if(mean.begin(), mean.end(), [&](const CurvePoint& p) { return p.y <= f.y_high; });
  if (inside != mean.begin() && inside != mean.end()) {
    const double x = px(inside->x) + 14;
    svg.add("<path d=\"M%.1f %gl-5 8h10zv18\" fill=\"#0060a8\" stroke=\"#0060a8\"/>\n", x, top + 2);
    svg.text(x + 10, top + 16, "start", "starts at " + number(std::round(training.front().y * 10) / 10), halo);
  }

  // The legend, above the plot, where no curve can be.
  double x = left;
  if (!training.empty()) {
    svg.line(x, 60, x + 36, 60, faint_key);
    svg.line(x, 60, x + 36, 60, bold);
    svg.text(x + 46, 66, "start", "training, moving mean");
    x += 290;
  }
  if (!held_out.empty()) {
    svg.circle(x + 6, 60, 4.8, mark);
    svg.text(x + 22, 66, "start", "held out, last " + three_decimals(held_out.back().y));
  }
  svg.raw("</svg>\n");
  return svg.take();
}

/// \throws ordo::FileError when the file cannot be written.
inline void write_loss_curve(const std::filesystem::path& path, const LossCurve& curve) {
  write_file(path, loss_curve_svg(curve));
}

}  // namespace ordo_demo
