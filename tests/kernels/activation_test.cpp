// Activations and their derivatives against long double, over the whole range of arguments.
#include "ordo/kernels/activation.hpp"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using ordo::Activation;
using ordo::ActivationParameters;
using ordo::Index;
using Real = long double;

Real sigma(Real x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
Real softplus(Real x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
Real density(Real x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Real(-1))); }
Real distribution(Real x) { return std::erfc(-x / std::sqrt(Real(2))) / 2; }

struct Reference {
  ActivationParameters p;
  std::function<Real(Real)> value, first, second;
};

/// x sigma(u(x)), u' and u'' given.
Reference gated(Activation kind, std::function<Real(Real)> u, std::function<Real(Real)> u1,
                std::function<Real(Real)> u2) {
  return {{kind},
          [=](Real x) { return x * sigma(u(x)); },
          [=](Real x) { return sigma(u(x)) * (1 + x * sigma(-u(x)) * u1(x)); },
          [=](Real x) {
            const Real s = sigma(u(x)), r = sigma(-u(x));
            return s * r * (2 * u1(x) + x * u2(x) + x * u1(x) * u1(x) * (r - s));
          }};
}

std::vector<Reference> references() {
  const auto zero = [](Real) { return Real(0); };
  std::vector<Reference> all;
  all.push_back({{Activation::none}, [](Real x) { return x; }, [](Real) { return Real(1); }, zero});
  all.push_back({{Activation::relu}, [](Real x) { return x > 0 ? x : 0; }, [](Real x) { return Real(x > 0); }, zero});
  all.push_back({{Activation::relu_squared},
                 [](Real x) { return x > 0 ? x * x : 0; },
                 [](Real x) { return x > 0 ? 2 * x : 0; },
                 [](Real x) { return Real(x > 0 ? 2 : 0); }});
  for (double slope : {0.01, 0.25}) {
    all.push_back({{Activation::leaky_relu, slope},
                   [=](Real x) { return x > 0 ? x : slope * x; },
                   [=](Real x) { return x > 0 ? Real(1) : Real(slope); },
                   zero});
  }
  for (double alpha : {1.0, 0.75}) {
    const auto below = [=](Real x) { return alpha * std::exp(x); };
    all.push_back({{Activation::elu, 0.01, alpha},
                   [=](Real x) { return x > 0 ? x : alpha * std::expm1(x); },
                   [=](Real x) { return x > 0 ? 1 : below(x); },
                   [=](Real x) { return x > 0 ? 0 : below(x); }});
  }
  all.push_back({{Activation::gelu},
                 [](Real x) { return x * distribution(x); },
                 [](Real x) { return distribution(x) + x * density(x); },
                 [](Real x) { return density(x) * (2 - x * x); }});
  const Real c = 2 * std::sqrt(2 / std::acos(Real(-1))), k = 0.044715L;
  all.push_back(gated(
      Activation::gelu_tanh, [=](Real x) { return c * (x + k * x * x * x); },
      [=](Real x) { return c * (1 + 3 * k * x * x); }, [=](Real x) { return 6 * c * k * x; }));
  all.push_back(gated(
      Activation::quick_gelu, [](Real x) { return 1.702L * x; }, [](Real) { return 1.702L; }, zero));
  all.push_back(gated(
      Activation::silu, [](Real x) { return x; }, [](Real) { return Real(1); }, zero));
  for (double beta : {1.0, 2.5, -0.5}) {
    all.push_back({{Activation::softplus, 0.01, 1, beta},
                   [=](Real x) { return softplus(beta * x) / beta; },
                   [=](Real x) { return sigma(beta * x); },
                   [=](Real x) { return beta * sigma(beta * x) * sigma(-beta * x); }});
  }
  all.push_back({{Activation::sigmoid},
                 [](Real x) { return sigma(x); },
                 [](Real x) { return sigma(x) * sigma(-x); },
                 [](Real x) { return -sigma(x) * sigma(-x) * std::tanh(x / 2); }});
  const auto sech = [](Real x) { return 4 * sigma(2 * x) * sigma(-2 * x); };
  all.push_back({{Activation::tanh},
                 [](Real x) { return std::tanh(x); },
                 [=](Real x) { return sech(x); },
                 [=](Real x) { return -2 * sech(x) * std::tanh(x); }});
  const auto mish_slope = [=](Real x) {  // d/dx tanh(softplus(x)), 1 - tanh(p)^2 = 4 sigma(2p) sigma(-2p)
    return sech(softplus(x)) * sigma(x);
  };
  all.push_back(
      {{Activation::mish},
       [](Real x) { return x * std::tanh(softplus(x)); },
       [=](Real x) { return std::tanh(softplus(x)) + x * mish_slope(x); },
       [=](Real x) { return mish_slope(x) * (2 + x * (sigma(-x) - 2 * std::tanh(softplus(x)) * sigma(x))); }});
  all.push_back({{Activation::hard_swish},
                 [](Real x) { return x <= -3  ? 0
                                     : x >= 3 ? x
                                              : x * (x + 3) / 6; },
                 [](Real x) { return x <= -3  ? 0
                                     : x >= 3 ? 1
                                              : (2 * x + 3) / 6; },
                 [](Real x) { return std::abs(x) < 3 ? Real(1) / 3 : 0; }});
  all.push_back({{Activation::hard_sigmoid},
                 [](Real x) { return x <= -3  ? 0
                                     : x >= 3 ? 1
                                              : (x + 3) / 6; },
                 [](Real x) { return std::abs(x) < 3 ? Real(1) / 6 : 0; },
                 zero});
  all.push_back({{Activation::log_sigmoid},
                 [](Real x) { return -softplus(-x); },
                 [](Real x) { return sigma(-x); },
                 [](Real x) { return -sigma(x) * sigma(-x); }});
  return all;
}

/// Arguments of all sizes and both signs, no kinks (0, 3) among them.
template <class T>
std::vector<T> arguments() {
  std::vector<T> x;
  for (double size = 1e-6; size < 90; size *= 1.013) {
    x.push_back(static_cast<T>(size));
    x.push_back(static_cast<T>(-size));
  }
  return x;
}

/// The error of every element, allowing what a change of x by `eps` times `sensitivity` gives: f is as well computed as
/// its argument is known. Denormal exponentials count as 0, with factors of up to x u'^2 = 2e5 (gelu_tanh) before them.
template <class T>
void check(const std::string& what, const std::vector<T>& x, const std::vector<T>& y,
           const std::function<Real(Real)>& f, Real units, Real sensitivity) {
  const Real eps = std::numeric_limits<T>::epsilon(), tiny = 1e6L * Real(std::numeric_limits<T>::min());
  Real worst = 0;
  T where = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Real at = x[i], expected = f(at), h = std::abs(at) * 1e-6L;
    const Real change = std::abs(f(at + h) - f(at - h)) / 2e-6L;  // |x f'|
    const Real allowed = eps * (units * std::abs(expected) + sensitivity * change) + tiny;
    const Real error = std::abs(Real(y[i]) - expected) / allowed;
    if (!(error <= worst)) {
      worst = error;
      where = x[i];
    }
  }
  INFO(what << ": " << static_cast<double>(worst) << " of what is allowed, at " << where);
  CHECK(worst <= 1);
}

}  // namespace

TEMPLATE_TEST_CASE("activations agree with long double", "", float, double) {
  const auto x = arguments<TestType>();
  const auto n = static_cast<Index>(x.size());
  const std::vector<TestType> ones(x.size(), TestType(1));
  std::vector<TestType> y(x.size());
  for (const Reference& r : references()) {
    const std::string name = to_string(r.p.kind);
    ordo::kernels::activate(r.p, x.data(), y.data(), n);
    check(name, x, y, r.value, 3, 0.5);
    ordo::kernels::activate_first(r.p, x.data(), ones.data(), y.data(), n);
    check(name + "'", x, y, r.first, 4, 4);
    ordo::kernels::activate_second(r.p, x.data(), ones.data(), y.data(), n);
    check(name + "''", x, y, r.second, 8, 4);
  }
}

TEMPLATE_TEST_CASE("activations are finite for all finite arguments", "", float, double) {
  const TestType big = std::numeric_limits<TestType>::max(), small = std::numeric_limits<TestType>::denorm_min();
  const std::vector<TestType> x{0, small, -small, 3, -3, 80, -80, 1e4F, -1e4F, 1e18F, -1e18F, 1e30F, -1e30F};
  const std::vector<TestType> ones(x.size(), TestType(1));
  std::vector<TestType> y(x.size());
  const auto n = static_cast<Index>(x.size());
  for (const Reference& r : references()) {
    CAPTURE(to_string(r.p.kind));
    ordo::kernels::activate(r.p, x.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CAPTURE(x[i]);
      CHECK((std::isfinite(y[i]) || (r.p.kind == Activation::relu_squared && x[i] > 1e15F)));
    }
    ordo::kernels::activate_first(r.p, x.data(), ones.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CAPTURE(x[i]);
      CHECK(std::isfinite(y[i]));
    }
    ordo::kernels::activate_second(r.p, x.data(), ones.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CAPTURE(x[i]);
      CHECK(std::isfinite(y[i]));
    }
    const TestType nan = std::numeric_limits<TestType>::quiet_NaN();
    TestType out = 0;
    ordo::kernels::activate(r.p, &nan, &out, 1);
    CHECK(std::isnan(out));
    ordo::kernels::activate(r.p, &big, &out, 1);
    CHECK_FALSE(std::isnan(out));
  }
}

TEMPLATE_TEST_CASE("activations touch n elements, in place or not, on any number of threads", "", float, double) {
  constexpr Index guard = 3;
  for (const Reference& r : references()) {
    CAPTURE(to_string(r.p.kind));
    for (Index n = 0; n <= 2 * ordo::simd::lanes<TestType> + 1; ++n) {
      std::vector<TestType> x(static_cast<std::size_t>(n)), u(x.size()), y(x.size() + guard, TestType(77));
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<TestType>(0.3 * static_cast<double>(i) - 2);
        u[i] = static_cast<TestType>(i + 1);
      }
      ordo::kernels::activate_first(r.p, x.data(), u.data(), y.data(), n);
      for (std::size_t i = x.size(); i < y.size(); ++i) CHECK(y[i] == TestType(77));
      std::vector<TestType> one(1);
      for (std::size_t i = 0; i < x.size(); ++i) {  // a lane does not depend on its place
        ordo::kernels::activate_first(r.p, &x[i], &u[i], one.data(), 1);
        CHECK(one[0] == y[i]);
      }
      ordo::kernels::activate_first(r.p, x.data(), u.data(), u.data(), n);
      for (std::size_t i = 0; i < x.size(); ++i) CHECK(u[i] == y[i]);
    }
  }
  std::vector<TestType> x(100003), one_thread(x.size()), two_threads(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<TestType>(std::sin(static_cast<double>(i)) * 9);
  const auto n = static_cast<Index>(x.size());
  ordo::kernels::activate({Activation::gelu}, x.data(), one_thread.data(), n);
  ordo::set_num_threads(2);
  ordo::kernels::activate({Activation::gelu}, x.data(), two_threads.data(), n);
  ordo::set_num_threads(1);
  CHECK(one_thread == two_threads);
}

TEST_CASE("activations have names") {
  for (int i = 0; i <= static_cast<int>(Activation::log_sigmoid); ++i) {
    const auto kind = static_cast<Activation>(i);
    CHECK(ordo::activation_from_string(to_string(kind)) == kind);
  }
  CHECK(to_string(Activation::gelu_tanh) == "gelu_tanh");
  try {
    static_cast<void>(ordo::activation_from_string("swish"));
    FAIL("an unknown name was accepted");
  } catch (const ordo::ConfigError& e) {
    const std::string message = e.what();
    CHECK(message.find("\"swish\"") != std::string::npos);
    CHECK(message.find("silu") != std::string::npos);
    CHECK(message.find("log_sigmoid") != std::string::npos);
  }
}
